"""Parallel prediction: which reports are written blind."""

from __future__ import annotations

import torch

from lapvqa.pretrain.inputs import hide_inputs

INPUTS = torch.arange(40).view(8, 5) + 100
INDICES = list(range(8))


def test_a_hidden_row_shows_its_begin_token_alone() -> None:
    hidden = hide_inputs(INPUTS, 1.0, seed=0, epoch=0, indices=INDICES)
    assert torch.equal(hidden, INPUTS[:, :1].expand(-1, 5))
    assert torch.equal(hide_inputs(INPUTS, 0.0, seed=0, epoch=0, indices=INDICES), INPUTS)


def test_the_share_is_kept_and_rows_change_with_the_epoch() -> None:
    many = torch.arange(4000).view(1000, 4)
    rows = [
        (hide_inputs(many, 0.75, seed=0, epoch=epoch, indices=range(1000))[:, 1] != many[:, 1])
        for epoch in (0, 1)
    ]
    assert abs(rows[0].float().mean() - 0.75) < 0.05
    assert not torch.equal(rows[0], rows[1])


def test_what_is_hidden_depends_on_the_sample_not_on_its_batch() -> None:
    whole = hide_inputs(INPUTS, 0.5, seed=3, epoch=2, indices=INDICES)
    turned = hide_inputs(INPUTS.flip(0), 0.5, seed=3, epoch=2, indices=INDICES[::-1])
    assert torch.equal(turned.flip(0), whole)
