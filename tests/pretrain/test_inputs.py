"""Parallel prediction: which reports are written blind."""

from __future__ import annotations

import torch

from lapvqa.pretrain.inputs import Inputs, draw_hidden

INPUTS = torch.arange(40).view(8, 5) + 100
INDICES = list(range(8))


def written(share: float, *, indices: list[int] = INDICES) -> torch.Tensor:
    """Return what the decoder sees of INPUTS, whose rows are those of ``indices``."""
    nothing = torch.empty(0)
    hidden = draw_hidden(share, seed=3, epoch=2, indices=indices)
    inputs = Inputs(nothing, INPUTS[indices], nothing, nothing, nothing, nothing, None, hidden)
    return inputs.written_tokens


def test_a_hidden_row_shows_its_begin_token_alone() -> None:
    assert torch.equal(written(1.0), INPUTS[:, :1].expand(-1, 5))
    assert torch.equal(written(0.0), INPUTS)


def test_the_share_is_kept_and_rows_change_with_the_epoch() -> None:
    rows = [draw_hidden(0.75, seed=0, epoch=epoch, indices=range(1000)) for epoch in (0, 1)]
    assert abs(rows[0].float().mean() - 0.75) < 0.05
    assert not torch.equal(rows[0], rows[1])


def test_what_is_hidden_depends_on_the_sample_not_on_its_batch() -> None:
    whole = written(0.5)
    assert not torch.equal(whole, INPUTS)
    assert torch.equal(written(0.5, indices=INDICES[::-1]).flip(0), whole)
