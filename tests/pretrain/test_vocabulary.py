"""Training on the tokens that occur equals training on all 50257."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lapvqa.images.report_pairs import IGNORED, pad_tokens
from lapvqa.networks.losses import LOGIT_BYTES, head_loss
from lapvqa.networks.vocabulary import CutVocabulary
from lapvqa.params import ModelParams
from lapvqa.pretrain.model import CaptioningModel, initial_model

TABLE = "decoder.token_embed.weight"
REPORTS = [np.array(ids, np.uint16) for ids in ([50256, 5, 900, 50256], [50256, 31000, 50256])]
UNSEEN = np.array([50256, 5, 77, 50256], np.uint16)


@pytest.fixture
def vocabulary() -> CutVocabulary:
    return CutVocabulary(REPORTS)


@pytest.fixture
def models(
    sizes: ModelParams, vocabulary: CutVocabulary
) -> tuple[CaptioningModel, CaptioningModel]:
    """The same model with a cut and with a full table, in double precision."""
    torch.manual_seed(0)
    cut, full = initial_model(sizes, seed=0), initial_model(sizes, seed=0)
    vocabulary.cut(cut)
    torch.nn.init.normal_(cut.decoder.token_embed.weight)
    full.load_state_dict(vocabulary.restore(cut, cut.state_dict()))
    return cut.double(), full.double()


def full_loss(model: CaptioningModel, images: torch.Tensor, reports: list[np.ndarray]):
    """The plain loss: logits of every position and token."""
    inputs, targets = pad_tokens(reports)
    logits = model(images, inputs)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def cut_loss(
    model: CaptioningModel,
    images: torch.Tensor,
    reports: list[np.ndarray],
    vocabulary: CutVocabulary,
    *,
    limit: int = LOGIT_BYTES,
) -> torch.Tensor:
    """The loss that training takes, per token."""
    inputs, targets = pad_tokens(reports)
    places = (targets.flatten() != IGNORED).nonzero().squeeze(1)
    hidden = model.hidden_states(images, vocabulary.number(inputs)).flatten(0, 1)[places]
    numbers = vocabulary.number(targets.flatten()[places])
    log_count = vocabulary.log_count.to(hidden.dtype)
    table = model.decoder.token_embed.weight
    return head_loss(hidden, table, log_count, numbers, limit=limit) / len(places)


@pytest.mark.parametrize("limit", [LOGIT_BYTES, 1, 50], ids=["at once", "one by one", "by twos"])
@pytest.mark.parametrize("reports", [REPORTS, [REPORTS[0], UNSEEN]], ids=["seen", "unseen"])
def test_loss_and_gradients_are_those_of_the_full_softmax(
    models: tuple[CaptioningModel, CaptioningModel],
    vocabulary: CutVocabulary,
    reports: list[np.ndarray],
    limit: int,
) -> None:
    """However many logits may exist at once."""
    cut, full = models
    images = torch.randn(2, 1, 32, 32).double()
    loss = cut_loss(cut, images, reports, vocabulary, limit=limit)
    expected = full_loss(full, images, reports)
    with torch.no_grad():
        torch.testing.assert_close(
            cut_loss(cut, images, reports, vocabulary, limit=limit), expected.detach()
        )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    reference = dict(full.named_parameters())
    for name, parameter in cut.named_parameters():
        if name != TABLE:
            torch.testing.assert_close(parameter.grad, reference[name].grad, msg=name)
    found, table = cut.decoder.token_embed.weight.grad, reference[TABLE].grad
    assert found is not None
    assert table is not None
    torch.testing.assert_close(found[:-1], table[vocabulary.kept])
    others = torch.ones(50257, dtype=torch.bool)
    others[vocabulary.kept] = False
    torch.testing.assert_close(found[-1], table[others].sum(0))


def test_rows_of_tokens_that_never_occur_stay_equal(
    models: tuple[CaptioningModel, CaptioningModel], vocabulary: CutVocabulary
) -> None:
    """The claim that the shared row rests on, on the full table itself."""
    _, full = models
    optimizer = torch.optim.AdamW(full.parameters(), lr=1e-2)
    images = torch.randn(2, 1, 32, 32).double()
    for _ in range(3):
        full_loss(full, images, REPORTS).backward()
        optimizer.step()
        optimizer.zero_grad()
    others = torch.ones(50257, dtype=torch.bool)
    others[vocabulary.kept] = False
    rows = full.decoder.token_embed.weight[others]
    torch.testing.assert_close(rows, rows[:1].expand_as(rows), rtol=0, atol=1e-6)


def test_numbers_of_the_cut_vocabulary(vocabulary: CutVocabulary) -> None:
    assert vocabulary.kept.tolist() == [5, 900, 31000, 50256]
    numbers = vocabulary.number(torch.tensor([50256, 5, 6, 31000, IGNORED]))
    assert numbers.tolist() == [3, 0, 4, 2, IGNORED]
    assert vocabulary.log_count.tolist() == pytest.approx([0, 0, 0, 0, math.log(50253)])


def test_a_vocabulary_of_all_tokens_is_left_as_it_is(sizes: ModelParams) -> None:
    vocabulary = CutVocabulary([np.arange(50257, dtype=np.uint16)])
    cut, full = initial_model(sizes, seed=0), initial_model(sizes, seed=0)
    vocabulary.cut(cut)
    images = torch.randn(2, 1, 32, 32)
    loss = cut_loss(cut, images, REPORTS, vocabulary)
    torch.testing.assert_close(loss, full_loss(full, images, REPORTS), rtol=1e-5, atol=1e-5)
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in cut.parameters())


def test_numbers_are_spelt_as_the_ids_they_came_from(vocabulary: CutVocabulary) -> None:
    assert vocabulary.spell([3, 0, 2, 1]) == [50256, 5, 31000, 900]
    unknown = vocabulary.spell([4])[0]
    assert unknown not in vocabulary.kept.tolist()
    assert 0 <= unknown < 50257


def test_a_text_encoder_is_cut_and_restored_too(
    sizes: ModelParams, vocabulary: CutVocabulary
) -> None:
    model = initial_model(sizes, seed=0, objective="contrastive")
    full = initial_model(sizes, seed=0, objective="contrastive")
    vocabulary.cut(model)
    assert model.text_encoder.token_embed.weight.shape == (5, sizes.text_width)
    weights = vocabulary.restore(model, model.state_dict())
    full.load_state_dict(weights)
    inputs, targets = pad_tokens(REPORTS)
    valid = targets != IGNORED
    torch.testing.assert_close(
        model.embed_reports(vocabulary.number(inputs), valid), full.embed_reports(inputs, valid)
    )
