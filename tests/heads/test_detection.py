"""Detection: matching, loss and predictions against brute force and transformers' DETR."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from tiny_heads import make_detector, without_dropout
from torch import Tensor
from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

from lapvqa.ad.heads import (
    BACKGROUND,
    DetectionHead,
    LossWeights,
    TrueDetections,
    detection_loss,
    match,
    predict,
)
from lapvqa.datasets.vindr_tables import CLASSES
from lapvqa.errors import TrainingError
from lapvqa.heads.boxes import iou, to_cxcywh, to_xyxy


def outputs_of(seed: int, batch: int = 3, queries: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, queries, BACKGROUND + 1, generator=generator)
    return logits, boxes_of(generator, batch * queries).view(batch, queries, 4)


def boxes_of(generator: torch.Generator, count: int) -> Tensor:
    """Return boxes (cx, cy, w, h) that lie inside the image."""
    low = torch.rand(count, 2, generator=generator) * 0.6
    return to_cxcywh(
        torch.cat([low, low + 0.1 + 0.3 * torch.rand(count, 2, generator=generator)], dim=1)
    )


def targets_of(seed: int, counts: tuple[int, ...]) -> list[TrueDetections]:
    generator = torch.Generator().manual_seed(1000 + seed)
    return [
        TrueDetections(
            torch.randint(0, BACKGROUND, (count,), generator=generator),
            boxes_of(generator, count),
        )
        for count in counts
    ]


def giou_by_hand(a: list[float], b: list[float]) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b

    def reach(c: float, s: float, d: float, t: float) -> tuple[float, float]:
        low, high = (c - s / 2, d - t / 2), (c + s / 2, d + t / 2)
        return max(0.0, min(high) - max(low)), max(high) - min(low)

    (common_x, hull_x), (common_y, hull_y) = reach(ax, aw, bx, bw), reach(ay, ah, by, bh)
    common, hull = common_x * common_y, hull_x * hull_y
    union = aw * ah + bw * bh - common
    return common / union - (hull - union) / hull


def cost_by_hand(logits: Tensor, boxes: Tensor, target: TrueDetections) -> list[list[float]]:
    probabilities = (logits.exp() / logits.exp().sum(dim=1, keepdim=True)).tolist()
    return [
        [
            -probability[label]
            + 5 * sum(abs(x - y) for x, y in zip(box, true, strict=True))
            - 2 * giou_by_hand(box, true)
            for label, true in zip(target.labels.tolist(), target.boxes.tolist(), strict=True)
        ]
        for probability, box in zip(probabilities, boxes.tolist(), strict=True)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_the_matching_costs_least_of_all_there_are(seed: int) -> None:
    logits, boxes = outputs_of(seed)
    targets = targets_of(seed, (3, 5, 1))
    found = match(logits, boxes, targets)
    for image, (queries, trues) in enumerate(found):
        cost = cost_by_hand(logits[image], boxes[image], targets[image])
        count = len(targets[image].labels)
        least = min(
            sum(cost[query][true] for true, query in enumerate(chosen))
            for chosen in permutations(range(5), count)
        )
        assert len(set(queries.tolist())) == len(set(trues.tolist())) == count
        pairs = zip(queries.tolist(), trues.tolist(), strict=True)
        assert sum(cost[query][true] for query, true in pairs) == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_matching_and_losses_are_those_of_transformers(seed: int) -> None:
    logits, boxes = outputs_of(seed, batch=4, queries=7)
    targets = targets_of(seed, (3, 0, 7, 1))
    matcher = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    theirs = ImageLoss(matcher, BACKGROUND, 0.1, ["labels", "boxes"])
    expected = theirs(
        {"logits": logits, "pred_boxes": boxes},
        [{"class_labels": target.labels, "boxes": target.boxes} for target in targets],
    )
    found = detection_loss(logits, boxes, targets)
    for ours, name in (("classes", "loss_ce"), ("l1", "loss_bbox"), ("giou", "loss_giou")):
        torch.testing.assert_close(getattr(found, ours), expected[name], rtol=1e-6, atol=1e-6)
    weighted = expected["loss_ce"] + 5 * expected["loss_bbox"] + 2 * expected["loss_giou"]
    torch.testing.assert_close(found.total, weighted, rtol=1e-6, atol=1e-6)
    assert found.num_unmatched == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_queries_and_of_boxes_is_nothing(seed: int) -> None:
    logits, boxes = outputs_of(seed)
    targets = targets_of(seed, (3, 4, 2))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(5, generator=generator)
    shuffled = [
        TrueDetections(target.labels[by], target.boxes[by])
        for target in targets
        for by in [torch.randperm(len(target.labels), generator=generator)]
    ]
    expected = detection_loss(logits, boxes, targets)
    found = detection_loss(logits[:, order], boxes[:, order], shuffled)
    for name in ("total", "classes", "l1", "giou"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6
        )
    wrong = [TrueDetections(target.labels.roll(1), target.boxes) for target in targets]
    assert not torch.allclose(detection_loss(logits, boxes, wrong).total, expected.total)


def test_the_background_has_a_weight_of_its_own() -> None:
    logits, boxes = outputs_of(0, batch=1)
    (target,) = targets_of(0, (2,))
    heavy = detection_loss(logits, boxes, [target], weights=LossWeights(background=1.0))
    light = detection_loss(logits, boxes, [target])
    queries, trues = match(logits, boxes, [target])[0]
    wanted = torch.full((5,), BACKGROUND)
    wanted[queries] = target.labels[trues]
    terms = -logits[0].log_softmax(dim=-1)[range(5), wanted]
    weight = torch.where(wanted == BACKGROUND, 0.1, 1.0)
    torch.testing.assert_close(heavy.classes, terms.mean())
    torch.testing.assert_close(light.classes, (terms * weight).sum() / weight.sum())


def test_boxes_without_a_query_are_counted() -> None:
    logits, boxes = outputs_of(1, queries=4)
    loss = detection_loss(logits, boxes, targets_of(1, (6, 4, 5)))
    assert loss.num_unmatched == 2 + 0 + 1
    assert loss.total.isfinite()


def test_images_without_findings_teach_the_background() -> None:
    logits, boxes = outputs_of(2)
    logits.requires_grad_()
    boxes.requires_grad_()
    loss = detection_loss(logits, boxes, targets_of(2, (0, 0, 0)))
    assert (loss.l1.item(), loss.giou.item(), loss.num_unmatched) == (0, 0, 0)
    loss.total.backward()
    assert logits.grad is not None
    assert (logits.grad[..., BACKGROUND] < 0).all()
    assert not boxes.grad.any()


@pytest.mark.parametrize(
    ("labels", "box", "message"),
    [
        ([14], [0.5, 0.5, 0.1, 0.1], r"labels in 0\.\.13"),
        ([-1], [0.5, 0.5, 0.1, 0.1], r"labels in 0\.\.13"),
        ([0], [200.0, 0.5, 0.1, 0.1], "found others: pixels"),
        ([0], [float("nan"), 0.5, 0.1, 0.1], "found others"),
        ([0, 1], [0.5, 0.5, 0.1, 0.1], r"found \[2\] and \[1, 4\]"),
    ],
)
def test_targets_that_are_none(labels: list[int], box: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrueDetections(torch.tensor(labels), torch.tensor([box]))


def test_outputs_that_are_no_numbers_stop_training() -> None:
    logits, boxes = outputs_of(3)
    logits[1, 2, 3] = float("nan")
    with pytest.raises(TrainingError, match="expected finite outputs of the head"):
        detection_loss(logits, boxes, targets_of(3, (1, 14, 1)))


# The head


def scene(seed: int, images: int = 8) -> tuple[Tensor, list[TrueDetections]]:
    """Return features of random images and up to three boxes each."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, 9, 16, generator=generator)
    return features, targets_of(seed, tuple(image % 4 for image in range(images)))


def test_the_head_learns_to_find_all_boxes_and_no_others() -> None:
    head = without_dropout(make_detector())
    features, targets = scene(4)
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-3)
    for step in range(300):
        if step == 220:
            optimizer.param_groups[0]["lr"] = 2e-4
        optimizer.zero_grad()
        loss = detection_loss(*head(features), targets)
        loss.total.backward()
        optimizer.step()
    assert loss.total.item() < 0.15
    for found, target in zip(predict(head.eval(), features, min_score=0.5), targets, strict=True):
        assert sorted(found["labels"].tolist()) == sorted(target.labels.tolist())
        overlaps = iou(found["boxes"][:, None], to_xyxy(target.boxes))
        if len(target.labels):
            assert overlaps.max(dim=0).values.min() > 0.8


def test_the_head_gives_classes_and_boxes_of_every_query() -> None:
    head = make_detector(num_queries=6).eval()
    logits, boxes = head(torch.randn(2, 9, 16) * 10)
    assert logits.shape == (2, 6, 15)
    assert boxes.shape == (2, 6, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    with pytest.raises(ValueError, match=r"vis_tokens: expected \[B, N, 16\], found \[2, 9, 17\]"):
        head(torch.randn(2, 9, 17))


def test_the_order_of_object_queries_is_nothing() -> None:
    head = make_detector(num_queries=6).eval()
    features = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    logits, boxes = head(features)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    with torch.no_grad():
        head.object_queries.copy_(head.object_queries[:, order].clone())
    moved_logits, moved_boxes = head(features)
    torch.testing.assert_close(moved_logits, logits[:, order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved_boxes, boxes[:, order], rtol=1e-4, atol=1e-5)


class Fixed(DetectionHead):
    """A detection head that answers what it is told."""

    answer: tuple[Tensor, Tensor]

    def forward(self, vis_tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.answer


def test_predictions_by_hand() -> None:
    head = Fixed(16, 32, 3, 1, 1)
    p = torch.full((1, 3, 15), 0.01)
    p[0, 0, [4, BACKGROUND]] = torch.tensor([0.37, 0.5])  # a finding all the same: 0.37
    p[0, 1, 9] = 0.86
    p[0, 2, [0, 2]] = torch.tensor([0.2, 0.67])
    assert torch.allclose(p.sum(dim=-1), torch.ones(1, 3))
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.9, 0.4, 0.4], [0.3, 0.3, 0.2, 0.2]]])
    head.answer = p.log() + 3, boxes
    (found,) = predict(head, torch.zeros(1, 1, 16))
    assert found["labels"].tolist() == [9, 2, 4]
    torch.testing.assert_close(found["scores"], torch.tensor([0.86, 0.67, 0.37]))
    expected = torch.tensor([[0, 0.7, 0.3, 1], [0.2, 0.2, 0.4, 0.4], [0.4, 0.3, 0.6, 0.7]])
    torch.testing.assert_close(found["boxes"], expected)  # the first cut at the image's edge
    (sure,) = predict(head, torch.zeros(1, 1, 16), min_score=0.5)
    assert sure["labels"].tolist() == [9, 2]
    assert sure["boxes"].shape == (2, 4)


def test_the_classes_are_those_of_the_kaggle_release_in_its_order() -> None:
    assert len(CLASSES) == BACKGROUND == 14
    chosen = {
        0: "Aortic enlargement",
        3: "Cardiomegaly",
        8: "Nodule/Mass",
        13: "Pulmonary fibrosis",
    }
    assert {index: CLASSES[index] for index in chosen} == chosen
    assert list(CLASSES) == sorted(CLASSES, key=str.lower)


def test_the_loss_under_autocast_is_that_without() -> None:
    head = make_detector().eval()
    features, targets = scene(5)
    exact = detection_loss(*head(features), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = detection_loss(*head(features), targets)
        found = predict(head, features)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(exact.total.item(), rel=0.05)
    assert {tensor.dtype for tensor in found[0].values()} == {torch.float32, torch.int64}
