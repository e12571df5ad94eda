"""Grounding: one box per phrase, its loss against formulas written out, and learning."""

from __future__ import annotations

import pytest
import torch
from tiny_heads import without_dropout
from torch import Tensor

from lapvqa.heads.boxes import iou, to_cxcywh, to_xyxy
from lapvqa.pg.heads import VisualGroundingHead, grounding_loss

VIS_DIM, TXT_DIM = 16, 10


def make_grounder(seed: int = 0) -> VisualGroundingHead:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VisualGroundingHead(VIS_DIM, TXT_DIM, 32, 2)


def scene(seed: int, images: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Return images with two phrases each: a box depends on both."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, 9, VIS_DIM, generator=generator).repeat_interleave(2, dim=0)
    phrases = torch.randn(2, TXT_DIM, generator=generator).repeat(images, 1)
    low = torch.rand(2 * images, 2, generator=generator) * 0.5
    high = low + 0.2 + 0.3 * torch.rand(2 * images, 2, generator=generator)
    return features, phrases, to_cxcywh(torch.cat([low, high], dim=1))


def test_the_head_learns_a_box_from_image_and_phrase() -> None:
    head = without_dropout(make_grounder())
    features, phrases, truth = scene(0)
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-3)
    for step in range(300):
        if step == 220:
            optimizer.param_groups[0]["lr"] = 2e-4
        optimizer.zero_grad()
        loss = grounding_loss(head(features, phrases), truth)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    found = head.eval()(features, phrases)
    assert iou(to_xyxy(found), to_xyxy(truth)).min() > 0.9
    other = head(features, phrases.roll(1, dims=0))
    assert iou(to_xyxy(other), to_xyxy(truth)).mean() < 0.6, "the phrase decides"


def test_the_loss_by_hand() -> None:
    found = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.25, 0.25, 0.5, 0.5]])
    truth = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.75, 0.5, 0.5]])
    # The second: 0.05 is in the square part, 0.5 in the linear one. xyxy: found 0, 0, .5, .5;
    # truth .05, .5, .55, 1: they touch, so the IoU is 0; the hull .55 x 1, the union .5.
    distance = 0.5 * 0.05**2 / 0.1 + (0.5 - 0.05)
    overlap = 0 - (0.55 - 0.5) / 0.55
    expected = (0 + 5 * distance + 2 * (1 - overlap)) / 2
    assert grounding_loss(found, truth).item() == pytest.approx(expected, rel=1e-5)
    assert grounding_loss(truth, truth).item() == pytest.approx(0, abs=1e-6)


def test_a_phrase_is_one_token_with_or_without_its_axis() -> None:
    head = make_grounder().eval()
    features, phrases, _ = scene(1)
    boxes = head(features, phrases)
    assert boxes.shape == (12, 4)
    assert ((boxes > 0) & (boxes < 1)).all()
    torch.testing.assert_close(head(features, phrases[:, None]), boxes)


def test_rows_do_not_influence_each_other() -> None:
    head = make_grounder().eval()
    features, phrases, _ = scene(2)
    together = head(features, phrases)
    alone = torch.cat([head(features[row : row + 1], phrases[row : row + 1]) for row in range(12)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("vis_shape", "txt_shape", "message"),
    [
        ((2, 9, 17), (2, 10), r"vis_tokens: expected \[B, N, 16\], found \[2, 9, 17\]"),
        ((2, 9, 16), (2, 11), r"txt_tokens: expected \[B, 10\], found \[2, 11\]"),
        ((2, 9, 16), (2, 3, 10), r"txt_tokens: expected \[B, 10\], found \[2, 3, 10\]"),
    ],
)
def test_features_of_another_width_are_named(
    vis_shape: tuple[int, ...], txt_shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_grounder()(torch.zeros(vis_shape), torch.zeros(txt_shape))
