"""The losses of pairs against formulas written out, against transformers, and cut into pieces."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from lapvqa.images.report_pairs import read_batch
from lapvqa.machine import Training
from lapvqa.networks.losses import info_nce, pairwise_sigmoid
from lapvqa.params import PretrainParams
from lapvqa.pretrain import train
from lapvqa.pretrain.inputs import Inputs
from lapvqa.pretrain.objectives.contrastive import recall
from lapvqa.pretrain.objectives.table import OBJECTIVES
from lapvqa.pretrain.trainer import Trainer
from lapvqa.project import Project

SCALE, BIAS = math.log(10), -7.5


def embeddings(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    both = torch.randn(2, count, 8, generator=generator, dtype=torch.float64)
    images, reports = F.normalize(both, dim=-1)
    return images, reports


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def written_out_info_nce(images: Tensor, reports: Tensor, groups: list[int], scale: float) -> float:
    """Return the mean of -log p(partner) over images and over reports, in plain Python."""
    scores = (scale * images @ reports.T).tolist()
    count = len(scores)
    total = 0.0
    for i in range(count):
        allowed = [j for j in range(count) if j == i or groups[j] != groups[i]]
        total -= scores[i][i] - math.log(sum(math.exp(scores[i][j]) for j in allowed))
        total -= scores[i][i] - math.log(sum(math.exp(scores[j][i]) for j in allowed))
    return total / (2 * count)


def written_out_sigmoid(
    images: Tensor, reports: Tensor, groups: list[int], scale: float, bias: float
) -> float:
    scores = (scale * images @ reports.T + bias).tolist()
    total = 0.0
    for i, row in enumerate(scores):
        for j, score in enumerate(row):
            if i == j:
                total += math.log1p(math.exp(-score))
            elif groups[i] != groups[j]:
                total += math.log1p(math.exp(score))
    return total / len(scores)


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4, 5], [0, 1, 0, 2, 1, 0], [4, 4, 4, 4, 4, 4]])
def test_losses_are_the_formulas(groups: list[int]) -> None:
    images, reports = embeddings()
    found = info_nce(images, reports, torch.tensor(groups), number(SCALE))
    assert found.item() == pytest.approx(
        written_out_info_nce(images, reports, groups, 10), abs=1e-12
    )
    found = pairwise_sigmoid(images, reports, torch.tensor(groups), number(SCALE), number(BIAS))
    assert found.item() == pytest.approx(
        written_out_sigmoid(images, reports, groups, 10, BIAS), abs=1e-12
    )


SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
TEXT = {**SMALL, "vocab_size": 20, "max_position_embeddings": 4, "eos_token_id": 19}
VISION = {**SMALL, "image_size": 8, "patch_size": 4}


def run_theirs(model: CLIPModel | SiglipModel) -> dict[str, Tensor]:
    """Return the embeddings and the loss of a model of transformers for six pairs of noise."""
    model.double().eval()
    model.logit_scale.data.fill_(SCALE)
    with torch.no_grad():
        out = model(
            input_ids=torch.randint(0, 19, (6, 4)), return_loss=True,
            pixel_values=torch.randn(6, 3, 8, 8, dtype=torch.float64),
        )  # fmt: skip
    return {"images": out.image_embeds, "reports": out.text_embeds, "loss": out.loss}


def test_info_nce_is_that_of_transformers_clip() -> None:
    torch.manual_seed(0)
    config = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=8)
    theirs = run_theirs(CLIPModel(config))
    found = info_nce(theirs["images"], theirs["reports"], torch.arange(6), number(SCALE))
    assert found.item() == pytest.approx(theirs["loss"].item(), abs=1e-12)


def test_sigmoid_is_that_of_transformers_siglip() -> None:
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION))
    model.logit_bias.data.fill_(BIAS)
    theirs = run_theirs(model)
    found = pairwise_sigmoid(
        theirs["images"], theirs["reports"], torch.arange(6), number(SCALE), number(BIAS)
    )
    assert found.item() == pytest.approx(theirs["loss"].item(), abs=1e-12)


def test_temperature_stops_at_a_hundred() -> None:
    images, reports = embeddings()
    groups = torch.arange(6)
    at_limit = info_nce(images, reports, groups, number(math.log(100)))
    beyond = number(math.log(1000)).requires_grad_()
    loss = info_nce(images, reports, groups, beyond)
    assert loss.item() == at_limit.item()
    (gradient,) = torch.autograd.grad(loss, beyond)
    assert gradient.item() == 0


def test_gradients_are_those_of_finite_differences() -> None:
    images, reports = (one.requires_grad_() for one in embeddings(4))
    groups = torch.tensor([0, 1, 0, 2])
    scale, bias = number(SCALE).requires_grad_(), number(BIAS).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda i, r, s: info_nce(i, r, groups, s), (images, reports, scale)
    )
    assert torch.autograd.gradcheck(
        lambda i, r, s, b: pairwise_sigmoid(i, r, groups, s, b), (images, reports, scale, bias)
    )


def test_recall_counts_equal_reports_as_hits() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.2], [0.3, 0.8, 0.1], [0.9, 0.2, 0.1]])
    apart = recall(scores, torch.tensor([0, 1, 2]))
    assert apart[1] == pytest.approx(1 / 3)
    assert apart[5] == apart[10] == 1
    # The first image's best report is the second's, of the same wording.
    assert recall(scores, torch.tensor([0, 0, 2]))[1] == pytest.approx(2 / 3)


def as_double(inputs: Inputs) -> Inputs:
    return dataclasses.replace(inputs, images=inputs.images.double())


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_pieces_give_the_loss_and_the_gradients_of_the_whole(
    params: PretrainParams, project: Project, objective: str
) -> None:
    """In double precision, with plain inputs: nothing hides in rounding."""
    changed = params.model_copy(update={"objective": objective, "batch_size": 8, "augment": False})
    losses, gradients = [], []
    for pieces in (1, 2, 4):
        cut = changed.model_copy(update={"accumulate": pieces})
        trainer = Trainer(cut, train.read_corpus(project), torch.device("cpu"), training=Training())
        trainer.model.double()
        batches = [
            read_batch(trainer.corpus.train, indices, trainer.corpus.store)
            for indices in trainer.loader.plan.micro_batches(0)
        ]
        inputs = [as_double(trainer.preparer.for_validation(batch)) for batch in batches]
        num_targets = trainer.loader.num_targets(trainer.loader.plan.global_indices(0))
        losses.append(trainer.objective.backward(inputs, num_targets).item())
        gradients.append(
            {
                name: one.grad
                for name, one in trainer.model.named_parameters()
                if one.grad is not None
            }
        )
    assert losses[1:] == pytest.approx([losses[0]] * 2, abs=1e-6)
    for found in gradients[1:]:
        assert found.keys() == gradients[0].keys()
        for name, gradient in found.items():
            assert (gradient - gradients[0][name]).abs().max() < 1e-6, name
    assert max(one.abs().max() for one in gradients[0].values()) > 1e-2
