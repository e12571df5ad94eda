"""Which epoch of a head's training is kept, whatever its validation says."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lapvqa.errors import TrainingError
from lapvqa.heads.training import Fitted, fit
from lapvqa.networks.device import ON_CPU
from lapvqa.params import RecipeParams

SCORES = st.lists(
    st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 0.25, 0.5]), min_size=1, max_size=6
)


class Counting(nn.Module):
    """Its weight says how many epochs it was trained."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("epochs", torch.zeros(()))
        self.weight = nn.Parameter(torch.zeros(1))


def trained(scores: list[float]) -> tuple[Counting, Fitted]:
    head = Counting()
    coming = iter(scores)

    def score() -> float:
        head.epochs += 1
        return next(coming)

    recipe = RecipeParams(epochs=len(scores), batch_size=2)
    return head, fit(
        head, lambda numbers: head.weight.sum() ** 2, 2,
        recipe=recipe, score=score, computer=ON_CPU,
    )  # fmt: skip


@given(SCORES)
def test_the_last_of_the_best_finite_scores_is_kept(scores: list[float]) -> None:
    finite = [one for one in scores if math.isfinite(one)]
    if not finite:
        with pytest.raises(TrainingError, match="expected a finite validation score"):
            trained(scores)
        return
    head, fitted = trained(scores)
    last = max(epoch for epoch, one in enumerate(scores, start=1) if one == max(finite))
    assert (fitted.epoch, fitted.score) == (last, max(finite))
    assert head.epochs.item() == last


def test_a_first_score_that_is_nan_ends_nothing() -> None:
    head, fitted = trained([math.nan, 0.1, 0.3, 0.2])
    assert (fitted.epoch, fitted.score, head.epochs.item()) == (3, 0.3, 3)
