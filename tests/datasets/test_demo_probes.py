"""The demo's copies of the two classification sets, by the probes' readers."""

from __future__ import annotations

import csv

from lapvqa.datasets.chexpert import read_chexpert
from lapvqa.datasets.nih14 import read_nih14
from lapvqa.datasets.nih14_extras import read_boxes, read_entries
from lapvqa.inventory import scan


def test_nih_and_its_boxes(demo):
    folder = demo / "nih-cxr14"
    dataset = read_nih14(folder, [path for path, _, _ in scan(folder)])
    entries = read_entries(folder)
    boxes, account = read_boxes(folder, entries)
    assert account.read == account.kept == len(boxes) > 0
    tested = {sample: i for i, sample in enumerate(dataset.test.samples)}
    for box in boxes:
        named = dataset.test.targets[tested[box.sample]]
        assert named[dataset.labels.index(box.label)] == 1
        assert min(box.xyxy) >= 0
        assert max(box.xyxy) <= 512


def test_chexpert(demo):
    folder = demo / "CheXpert-v1.0-small"
    dataset = read_chexpert(folder, uncertain="mixed")
    with (folder / "train.csv").open() as handle:
        laterals = sum(row["Frontal/Lateral"] == "Lateral" for row in csv.DictReader(handle))
    assert dataset.left_out.get("lateral view in train.csv", 0) == laterals
    assert all((folder / image).is_file() for image in dataset.images)
    assert set(dataset.test.targets.ravel().tolist()) == {0, 1}
