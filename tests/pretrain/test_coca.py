"""CoCa is what captioning and InfoNCE are on the same model, in one pass."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from lapvqa.networks.generation import generate
from lapvqa.params import CocaParams, ModelParams, PretrainParams
from lapvqa.pretrain.distributed import World
from lapvqa.pretrain.inputs import Inputs
from lapvqa.pretrain.model import MODELS, CocaModel
from lapvqa.pretrain.objectives.captioning import Captioning
from lapvqa.pretrain.objectives.coca import Coca
from lapvqa.pretrain.objectives.contrastive import Contrastive
from lapvqa.pretrain.objectives.table import OBJECTIVES

CPU = torch.device("cpu")
LENGTHS = [5, 3, 7, 1]
GENERATOR = torch.Generator().manual_seed(1)


@pytest.fixture
def model(sizes: ModelParams) -> CocaModel:
    """In double precision, with weights that make layers differ from none."""
    torch.manual_seed(2)
    model = CocaModel(sizes.model_copy(update={"text_depth": 2, "decoder_depth": 2})).double()
    for parameter in model.parameters():
        if parameter.ndim:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=GENERATOR)
    return model


def made_inputs(model: CocaModel, *, hidden: list[bool] | None = None) -> Inputs:
    """Four reports of different lengths; 50256 begins each."""
    size, rows, longest = model.vision_encoder.image_size, len(LENGTHS), max(LENGTHS)
    images = torch.randn(rows, 1, size, size, generator=GENERATOR, dtype=torch.float64)
    tokens = torch.randint(0, 90, (rows, longest), generator=GENERATOR)
    tokens[:, 0] = 50256
    valid = torch.arange(longest) < torch.tensor(LENGTHS).unsqueeze(1)
    places = valid.flatten().nonzero().squeeze(1)
    return Inputs(
        images, tokens, valid, places, tokens.flatten()[places], torch.arange(rows), None,
        None if hidden is None else torch.tensor(hidden),
    )  # fmt: skip


class _Pairs(nn.Module):
    """The model as InfoNCE alone calls it."""

    def __init__(self, model: CocaModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: Tensor, tokens: Tensor, valid: Tensor, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return self.model.embed_images(images, keep), self.model.embed_reports(tokens, valid)


class _InfoNceAlone(Contrastive):
    def wrapped(self, log_count: Tensor) -> nn.Module:
        return _Pairs(self.model)


def gradients(
    kind: type[Captioning] | type[Contrastive],
    model: CocaModel,
    inputs: Inputs,
    weights: CocaParams,
) -> tuple[float, dict[str, Tensor]]:
    params = PretrainParams(epochs=1, batch_size=4, lr=1e-3, coca=weights)
    model.zero_grad(set_to_none=True)
    objective = kind(model, params, torch.zeros(50257).double(), World(), "ddp", CPU)
    loss = objective.backward([inputs], len(inputs.targets)).item()
    named = model.named_parameters()
    return loss, {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named}


@pytest.mark.parametrize("hidden", [None, [True, False, True, False], [True] * 4])
@pytest.mark.parametrize("weights", [CocaParams(), CocaParams(caption=0.5, contrastive=3.0)])
def test_loss_and_gradients_are_the_weighted_sum_of_both_objectives(
    model: CocaModel, hidden: list[bool] | None, weights: CocaParams
) -> None:
    """A report that is written blind is read in full, as if two passes were taken."""
    inputs = made_inputs(model, hidden=hidden)
    loss, found = gradients(Coca, model, inputs, weights)
    caption, written = gradients(Captioning, model, inputs, weights)
    pairs, read = gradients(_InfoNceAlone, model, inputs, weights)
    assert loss == pytest.approx(weights.caption * caption + weights.contrastive * pairs, abs=1e-6)
    assert min(caption, pairs) > 0.5
    for name, gradient in found.items():
        expected = weights.caption * written[name] + weights.contrastive * read[name]
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6, msg=name)


def test_a_reports_vector_is_that_of_the_token_behind_its_last_word(model: CocaModel) -> None:
    """Each report alone, without padding; and the words do not see that token."""
    inputs = made_inputs(model)
    decoder = model.decoder
    words, summary = model.read(inputs.tokens, inputs.valid)
    for row, length in enumerate(LENGTHS):
        alone = decoder.token_embed(inputs.tokens[row : row + 1, :length])
        behind = torch.cat([alone, model.cls_token.expand(1, 1, -1)], dim=1)
        torch.testing.assert_close(summary[row], decoder.read(behind)[0, -1], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            words[row, :length], decoder.read(alone)[0], rtol=1e-9, atol=1e-9
        )


def test_layers_of_words_are_cached_like_the_others(model: CocaModel) -> None:
    images = made_inputs(model).images
    found = generate(model, images, max_new_tokens=8)
    for image, text in zip(images, found, strict=True):
        ids = [50256]
        while len(ids) <= 8:
            ids.append(int(model(image[None], torch.tensor([ids]))[0, -1].argmax()))
            if ids[-1] == 50256:
                break
        assert text == [one for one in ids[1:] if one != 50256]


def test_validation_tells_the_parts_apart(model: CocaModel) -> None:
    params = PretrainParams(epochs=1, batch_size=4, lr=1e-3, coca=CocaParams(contrastive=0.5))
    inputs = made_inputs(model)
    arguments = (model, params, torch.zeros(50257).double(), World(), "ddp", CPU)
    with torch.no_grad():
        both, caption, pairs = (kind(*arguments) for kind in (Coca, Captioning, _InfoNceAlone))
        found = both.summarise([both.measure(inputs)])
        written = caption.summarise([caption.measure(inputs)])
        read = pairs.summarise([pairs.measure(inputs)])
    assert found["val_caption_loss"] == pytest.approx(written["val_loss"], abs=1e-9)
    assert found["val_perplexity"] == pytest.approx(math.exp(written["val_loss"]))
    assert found["val_contrastive_loss"] == pytest.approx(read["val_loss"], abs=1e-6)
    assert found["val_loss"] == pytest.approx(
        2 * found["val_caption_loss"] + 0.5 * found["val_contrastive_loss"], abs=1e-6
    )
    assert found["val_image_to_report_recall_at_1"] == read["val_image_to_report_recall_at_1"]


def test_every_name_has_an_objective_and_a_model() -> None:
    names = get_args(PretrainParams.model_fields["objective"].annotation)
    assert tuple(OBJECTIVES) == tuple(MODELS) == names


def test_weights_of_nothing_are_refused() -> None:
    for name in ("caption", "contrastive"):
        with pytest.raises(ValueError, match="greater than 0"):
            CocaParams(**{name: 0.0})
