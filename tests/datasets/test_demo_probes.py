"""The demo's copies of the two classification sets, by the probes' readers."""

from __future__ import annotations

import csv

from lapvqa.datasets.chexpert import read_chexpert
from lapvqa.datasets.nih14 import read_nih14
from lapvqa.inventory import scan


def test_nih_and_its_boxes(demo):
    folder = demo / "nih-cxr14"
    dataset = read_nih14(folder, [path for path, _, _ in scan(folder)])
    targets_of = {
        image.rsplit("/", 1)[-1]: targets
        for image, targets in zip(dataset.test.images, dataset.test.targets, strict=True)
    }
    with (folder / "BBox_List_2017.csv").open() as handle:
        rows = list(csv.reader(handle))[1:]
    assert rows
    for name, finding, *numbers in rows:
        label = {"Infiltrate": "Infiltration"}.get(finding, finding)
        assert targets_of[name][dataset.labels.index(label)] == 1
        x, y, width, height = map(float, numbers)
        assert min(x, y) >= 0
        assert max(x + width, y + height) <= 512


def test_chexpert(demo):
    folder = demo / "CheXpert-v1.0-small"
    dataset = read_chexpert(folder, [path for path, _, _ in scan(folder)], uncertain="mixed")
    with (folder / "train.csv").open() as handle:
        laterals = sum(row["Frontal/Lateral"] == "Lateral" for row in csv.DictReader(handle))
    assert dataset.left_out.get("lateral view in train.csv", 0) == laterals
    assert all((folder / image).is_file() for image in dataset.images)
    assert set(dataset.test.targets.ravel().tolist()) == {0, 1}
