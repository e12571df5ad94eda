"""mAP by hand, by loops, by pycocotools; COCO AP as pycocotools has it; what the checks refuse."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from resampling import clustered_interval

from lapvqa.errors import SchemaError
from lapvqa.metrics.boxes import coco
from lapvqa.metrics.boxes.overlap import iou
from lapvqa.metrics.boxes.voc import (
    NO_TRUE_BOX,
    VINDR,
    VOC,
    FoundBoxes,
    Rule,
    TrueBoxes,
    detection_panel,
)

LABELS = ("Cardiomegaly", "Nodule/Mass", "ILD")
IMAGES = 30


def true_boxes(*rows: tuple) -> TrueBoxes:
    table = np.array(rows, dtype=float).reshape(-1, 6)
    return TrueBoxes(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:])


def found_boxes(*rows: tuple) -> FoundBoxes:
    """Rows of image, label, x0, y0, x1, y1, score."""
    table = np.array(rows, dtype=float).reshape(-1, 7)
    return FoundBoxes(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2:6], table[:, 6])


def scene(seed: int, *, labels: int = 2, levels: int = 0) -> tuple[TrueBoxes, FoundBoxes]:
    """True boxes in cells of a grid, so that none meet; found ones near them, and strays.

    A third of the images has no true box. ``levels``: how many different scores, 0 for any.
    """
    generator = np.random.default_rng(seed)
    true, found = [], []
    for image in range(IMAGES):
        for cell in range(4) if image % 3 else ():
            if generator.random() < 0.6:
                label = generator.integers(labels)
                low = np.array([cell % 2, cell // 2]) * 100 + generator.uniform(5, 15, 2)
                box = np.concatenate([low, low + generator.uniform(40, 80, 2)])
                true.append((image, label, *box))
                for _ in range(generator.integers(0, 3)):
                    near = box + generator.normal(scale=10, size=4)
                    found.append((image, label, *near, generator.random()))
        for _ in range(generator.integers(0, 3)):
            low = generator.uniform(0, 150, 2)
            size = generator.uniform(10, 50, 2)
            found.append((image, generator.integers(labels), *low, *low + size,
                          0.8 * generator.random()))  # fmt: skip
    boxes = found_boxes(*found)
    if levels:
        rounded = np.round(boxes.scores * levels) / levels
        boxes = FoundBoxes(boxes.image, boxes.label, boxes.boxes, rounded)
    return true_boxes(*true), boxes


def values(truth: TrueBoxes, found: FoundBoxes, num_images: int = IMAGES, **options: object):
    panel = detection_panel(truth, found, num_images=num_images, labels=LABELS, **options)
    row = panel.statistic(np.ones((1, num_images)))[0]
    return dict(zip(panel.names, row, strict=True))


def voc_by_loops(truth: TrueBoxes, found: FoundBoxes, label: int, rule: Rule) -> float:
    """The devkit's way, one box at a time."""
    own = [i for i in np.argsort(-found.scores) if found.label[i] == label]
    taken, hits = set(), []
    for i in own:
        best, best_iou = None, -1.0
        for j in range(len(truth.image)):
            if truth.image[j] == found.image[i] and truth.label[j] == label:
                a, b = found.boxes[i], truth.boxes[j]
                w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
                h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
                both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
                if w * h / (both - w * h) > best_iou:
                    best, best_iou = j, w * h / (both - w * h)
        enough = best_iou > rule.min_iou if rule.strict else best_iou >= rule.min_iou
        hits.append(enough and best not in taken)
        if hits[-1]:
            taken.add(best)
    total = (truth.label == label).sum()
    recall = [0, *np.cumsum(hits) / total, 1]
    precision = [0, *np.cumsum(hits) / np.arange(1, len(hits) + 1), 0]
    for k in range(len(precision) - 2, -1, -1):
        precision[k] = max(precision[k], precision[k + 1])
    steps = range(1, len(recall))
    return sum((recall[k] - recall[k - 1]) * precision[k] for k in steps)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rule", [VINDR, VOC], ids=lambda rule: rule.name)
def test_equal_to_the_devkits_loops(seed: int, rule: Rule) -> None:
    truth, found = scene(seed)
    ours = values(truth, found)
    for label in range(2):
        expected = voc_by_loops(truth, found, label, rule)
        assert ours[f"{rule.name}/{LABELS[label]}"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools_asked_at_every_recall(seed: int) -> None:
    """101 recalls replaced by those of the true boxes, COCO's mean is the area at all points."""
    truth, found = scene(seed)
    ours = values(truth, found)
    for rule in (VINDR, VOC):
        evaluated = coco.evaluate(truth, found, num_images=IMAGES, num_labels=len(LABELS))
        evaluated.params.iouThrs = np.array([rule.min_iou])
        with contextlib.redirect_stdout(io.StringIO()):
            evaluated.evaluate()
            for label in range(2):
                total = int((truth.label == label).sum())
                evaluated.params.recThrs = np.arange(1, total + 1) / total
                evaluated.accumulate()
                theirs = evaluated.eval["precision"][0, :, label, 0, 0].mean()
                assert ours[f"{rule.name}/{LABELS[label]}"] == pytest.approx(theirs, abs=1e-9)


def test_by_hand() -> None:
    truth = true_boxes((0, 0, 0, 0, 10, 10), (1, 0, 0, 0, 10, 10))
    found = found_boxes(
        (0, 0, 0, 0, 10, 10, 0.9),  # hit
        (0, 0, 0, 0, 10, 9, 0.8),  # the same finding again: false
        (2, 0, 0, 0, 10, 10, 0.7),  # an image without findings: false
        (1, 0, 0, 0, 10, 5, 0.6),  # IoU 0.5: hit
    )
    ours = values(truth, found, 3)
    assert ours["ap40/Cardiomegaly"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)
    assert ours["mean_ap40"] == ours["ap40/Cardiomegaly"]
    seen = found_boxes(
        (0, 0, 0, 0, 10, 10, 0.9), (0, 0, 0, 0, 10, 9, 0.8), (1, 0, 0, 0, 10, 5, 0.6)
    )  # fmt: skip
    without_normals = values(truth, seen, 2)
    assert without_normals["ap40/Cardiomegaly"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_vindr_wants_more_than_04_and_voc_at_least_05() -> None:
    truth = true_boxes((0, 0, 0, 0, 10, 10))
    at = {top: found_boxes((0, 0, 0, 0, 10, top, 1.0)) for top in (4.0, 4.001, 5.0, 4.999)}
    assert iou(at[4.0].boxes, truth.boxes)[0, 0] == 0.4
    assert values(truth, at[4.0])["mean_ap40"] == 0
    assert values(truth, at[4.001])["mean_ap40"] == 1
    assert values(truth, at[5.0])["mean_ap50"] == 1
    assert values(truth, at[4.999])["mean_ap50"] == 0


def test_classes_without_a_true_box_are_null_and_named() -> None:
    truth, found = scene(0)
    panel = detection_panel(truth, found, num_images=IMAGES, labels=LABELS)
    row = dict(zip(panel.names, panel.statistic(np.ones((1, IMAGES)))[0], strict=True))
    assert np.isnan(row["ap40/ILD"])
    assert panel.undefined["ap40/ILD"] == panel.undefined["ap50/ILD"] == NO_TRUE_BOX
    assert row["mean_ap40"] == pytest.approx(
        (row["ap40/Cardiomegaly"] + row["ap40/Nodule/Mass"]) / 2
    )


def test_kaggles_no_finding_class_is_a_one_pixel_box() -> None:
    truth = true_boxes((0, 2, 0, 0, 1, 1), (1, 0, 0, 0, 10, 10))
    found = found_boxes((0, 2, 0, 0, 1, 1, 0.9), (1, 2, 0, 0, 1, 1, 0.3))
    ours = values(truth, found, 2)
    assert ours["ap40/ILD"] == 1.0
    assert ours["ap40/Cardiomegaly"] == 0.0  # nothing found


@pytest.mark.parametrize("levels", [0, 5])
def test_the_order_of_boxes_and_images_does_not_matter(levels: int) -> None:
    truth, found = scene(3, levels=levels)
    generator = np.random.default_rng(0)
    one, other = (generator.permutation(len(x.image)) for x in (truth, found))
    image = generator.permutation(IMAGES)
    mixed = (
        TrueBoxes(image[truth.image[one]], truth.label[one], truth.boxes[one]),
        FoundBoxes(
            image[found.image[other]], found.label[other], found.boxes[other], found.scores[other]
        ),
    )
    assert values(*mixed) == pytest.approx(values(truth, found), nan_ok=True)


def _drawn(boxes: TrueBoxes | FoundBoxes, drawn: np.ndarray) -> tuple:
    """Repeat the boxes of the drawn images under new image numbers."""
    rows = [(np.flatnonzero(boxes.image == image), new) for new, image in enumerate(drawn)]
    index = np.concatenate([own for own, _ in rows])
    image = np.concatenate([np.full(len(own), new) for own, new in rows])
    return image, boxes.label[index], boxes.boxes[index], index


@pytest.mark.parametrize("levels", [0, 5])
def test_weights_are_repeated_images(levels: int) -> None:
    truth, found = scene(4, levels=levels)
    drawn = np.random.default_rng(1).integers(0, IMAGES, IMAGES)
    weights = np.bincount(drawn, minlength=IMAGES)[None] * 1.0
    true_image, true_label, true_box, _ = _drawn(truth, drawn)
    image, label, box, index = _drawn(found, drawn)
    again = (
        TrueBoxes(true_image, true_label, true_box),
        FoundBoxes(image, label, box, found.scores[index]),
    )
    for make in (detection_panel, coco.coco_panel):
        if levels and make is coco.coco_panel:
            continue  # pycocotools takes equal scores in the order of the images
        panel, repeated = (
            make(*pair, num_images=IMAGES, labels=LABELS) for pair in ((truth, found), again)
        )
        np.testing.assert_allclose(
            panel.statistic(weights), repeated.statistic(np.ones((1, IMAGES))), atol=1e-9
        )


@pytest.mark.parametrize("seed", range(4))
def test_coco_ap_is_what_pycocotools_accumulates(seed: int) -> None:
    truth, found = scene(seed, levels=7)
    panel = coco.coco_panel(truth, found, num_images=IMAGES, labels=LABELS)
    ours = dict(zip(panel.names, panel.statistic(np.ones((1, IMAGES)))[0], strict=True))
    evaluated = coco.evaluate(truth, found, num_images=IMAGES, num_labels=len(LABELS))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluated.accumulate()
    theirs = evaluated.eval["precision"][:, :, :, 0, 0]
    for label in range(2):
        expected = theirs[:, :, label].mean()
        assert ours[f"coco_ap/{LABELS[label]}"] == pytest.approx(expected, abs=1e-9)
        expected = theirs[0, :, label].mean()
        assert ours[f"coco_ap50/{LABELS[label]}"] == pytest.approx(expected, abs=1e-9)
    assert ours["mean_coco_ap"] == pytest.approx(theirs[theirs > -1].mean(), abs=1e-9)
    assert np.isnan(ours["coco_ap/ILD"])
    assert panel.undefined["coco_ap/ILD"] == NO_TRUE_BOX


def test_the_first_true_box_can_be_matched_in_coco() -> None:
    """pycocotools reads the id 0 as "no match"."""
    truth, found = true_boxes((0, 0, 0, 0, 10, 10)), found_boxes((0, 0, 0, 0, 10, 10, 0.5))
    panel = coco.coco_panel(truth, found, num_images=1, labels=LABELS)
    assert panel.statistic(np.ones((1, 1)))[0, 0] == pytest.approx(1)


def test_nothing_found_is_zero_and_no_error() -> None:
    truth, _ = scene(0)
    nothing = found_boxes()
    assert values(truth, nothing)["mean_ap40"] == 0
    panel = coco.coco_panel(truth, nothing, num_images=IMAGES, labels=LABELS)
    assert panel.statistic(np.ones((1, IMAGES)))[0, 0] == 0


def test_worse_boxes_score_less_and_patients_give_intervals() -> None:
    truth, found = scene(5)
    worse = FoundBoxes(found.image, found.label, found.boxes + [25, 0, 25, 0], found.scores)
    assert values(truth, worse)["mean_ap40"] < values(truth, found)["mean_ap40"] - 0.1
    panel = detection_panel(truth, found, num_images=IMAGES, labels=LABELS)
    patients = [f"p{image // 2}" for image in range(IMAGES)]
    first = clustered_interval(panel.statistic, patients, draws=200, confidence=0.95, seed=0)[0]
    assert first.low < first.value < first.high


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        ((9, 0, 0, 0, 1, 1), (0, 0, 0, 0, 1, 1, 1), "true boxes: images 0..1"),
        ((0, 3, 0, 0, 1, 1), (0, 0, 0, 0, 1, 1, 1), "true boxes: labels 0..2"),
        ((0, 0, 0, 0, 0, 1), (0, 0, 0, 0, 1, 1, 1), "true boxes: .* found 1 otherwise"),
        ((0, 0, 0, 0, 1, 1), (0, 0, 2, 0, 1, 1, 1), "found boxes: .* found 1 otherwise"),
        ((0, 0, 0, 0, 1, 1), (0, 0, 0, 0, np.inf, 1, 1), "found boxes: finite"),
        ((0, 0, 0, 0, 1, 1), (0, 0, 0, 0, 1, 1, np.nan), "a finite score"),
    ],
)
def test_what_cannot_be_scored_is_refused(truth: tuple, found: tuple, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        values(true_boxes(truth), found_boxes(found), 2)
