"""The CheXpert reader on the published layout: columns by name, policies, views, leaks."""

from __future__ import annotations

import re

import pytest

from lapvqa.datasets import chexpert
from lapvqa.datasets.chexpert import LABELS
from lapvqa.errors import SourceError, SplitLeakError


def path(patient: int, study: int = 1, view: str = "view1_frontal", split: str = "train") -> str:
    return f"CheXpert-v1.0-small/{split}/patient{patient:05d}/study{study}/{view}.jpg"


def read_chexpert(folder, files=(), **options):
    """Read with as many files as a test is about: the csv's paths stand where there are none."""
    return chexpert.read_chexpert(folder, files, **options)


@pytest.fixture
def many(chexpert_row):
    """Sixteen training patients, two test patients."""
    train = [chexpert_row(path(i), Edema="1.0" if i % 2 else "") for i in range(1, 17)]
    valid = [
        chexpert_row(path(i, split="valid"), Edema="1.0", Cardiomegaly="0.0")
        for i in (64541, 64542)
    ]
    return train, valid


def everything(dataset) -> dict[str, list[int]]:
    return {
        image: targets.tolist()
        for one in dataset.splits.values()
        for image, targets in zip(one.images, one.targets, strict=True)
    }


def test_first_path_component_is_stripped_whatever_the_folder_is_called(write_chexpert, many):
    dataset = read_chexpert(write_chexpert(*many), uncertain="zeros")
    assert "train/patient00001/study1/view1_frontal.jpg" in dataset.images
    assert dataset.test.images[0] == "valid/patient64541/study1/view1_frontal.jpg"


@pytest.mark.parametrize(("uncertain", "expected"), [("zeros", 0), ("ones", 1), ("ignore", -1)])
def test_labels_and_policies(write_chexpert, chexpert_row, many, uncertain, expected):
    train, valid = many
    train[0] = chexpert_row(
        path(1), Atelectasis="-1.0", Cardiomegaly="1.0", Consolidation="0.0", Edema="",
        Pleural_Effusion="-1",
    )  # fmt: skip
    dataset = read_chexpert(write_chexpert(train, valid), uncertain=uncertain)
    found = everything(dataset)["train/patient00001/study1/view1_frontal.jpg"]
    assert found == [expected, 1, 0, 0, expected]


def test_mixed_policy_is_ones_for_two_and_zeros_for_three(write_chexpert, chexpert_row, many):
    train, valid = many
    train[0] = chexpert_row(path(1), **{label.replace(" ", "_"): "-1.0" for label in LABELS})
    dataset = read_chexpert(write_chexpert(train, valid), uncertain="mixed")
    found = everything(dataset)["train/patient00001/study1/view1_frontal.jpg"]
    assert dict(zip(LABELS, found, strict=True)) == {
        "Atelectasis": 1, "Cardiomegaly": 0, "Consolidation": 0, "Edema": 1, "Pleural Effusion": 0,
    }  # fmt: skip


def test_uncertain_in_the_test_is_not_known_whatever_the_policy(write_chexpert, chexpert_row, many):
    train, valid = many
    valid[0] = chexpert_row(path(64541, split="valid"), Edema="-1.0")
    dataset = read_chexpert(write_chexpert(train, valid), uncertain="ones")
    assert dataset.test.targets[0].tolist() == [0, 0, 0, -1, 0]


def test_columns_are_read_by_name_in_any_order(write_chexpert, many):
    from_published = read_chexpert(write_chexpert(*many), uncertain="zeros")
    shuffled = sorted(["extra", *many[0][0]], reverse=True)
    from_shuffled = read_chexpert(write_chexpert(*many, columns=shuffled), uncertain="zeros")
    assert everything(from_published) == everything(from_shuffled)


def test_frontal_views_only_by_default(write_chexpert, chexpert_row, many):
    train, valid = many
    train.append(chexpert_row(path(1, view="view2_lateral"), view="Lateral"))
    folder = write_chexpert(train, valid)
    default = read_chexpert(folder, uncertain="zeros")
    both = read_chexpert(folder, uncertain="zeros", views=("Frontal", "Lateral"))
    assert len(both.images) == len(default.images) + 1 == 19


def test_validation_is_carved_by_patient_and_does_not_depend_on_row_order(
    write_chexpert, chexpert_row, many
):
    train, valid = many
    train += [chexpert_row(path(i, study=2)) for i in range(1, 17)]
    first = read_chexpert(write_chexpert(train, valid), uncertain="zeros")
    again = read_chexpert(write_chexpert(train[::-1], valid), uncertain="zeros")
    assert len(set(first.validate.patients)) == 2  # 12.5 % of 16
    assert len(first.validate) == 4
    assert not set(first.validate.patients) & set(first.train.patients)
    assert set(first.validate.images) == set(again.validate.images)


def test_keys_carry_no_patient_number(write_chexpert, many):
    dataset = read_chexpert(write_chexpert(*many), uncertain="zeros")
    keys = [*dataset.test.samples, *dataset.test.patients, *dataset.train.patients]
    assert all(re.fullmatch(r"[0-9a-f]{16}", key) for key in keys)
    assert len(set(dataset.test.samples)) == len(dataset.test)


def test_a_patient_in_train_and_test_is_a_leak(write_chexpert, chexpert_row, many):
    train, valid = many
    valid.append(chexpert_row(path(3, split="valid")))
    with pytest.raises(SplitLeakError, match="1 patients stand in both") as caught:
        read_chexpert(write_chexpert(train, valid), uncertain="zeros")
    assert "patient0" not in str(caught.value)


def test_missing_file_names_it_and_knows_a_folder_one_level_off(write_chexpert, many):
    folder = write_chexpert(*many)
    with pytest.raises(SourceError, match=r"expected train\.csv.*\n.*my copy of chexpert"):
        read_chexpert(folder.parent, uncertain="zeros")
    (folder / "valid.csv").unlink()
    with pytest.raises(SourceError, match=r"expected valid\.csv"):
        read_chexpert(folder, uncertain="zeros")


def test_missing_column_is_named(write_chexpert, many):
    columns = [name for name in many[0][0] if name != "Pleural Effusion"]
    with pytest.raises(SourceError, match=r"train\.csv: expected the column 'Pleural Effusion'"):
        read_chexpert(write_chexpert(*many, columns=columns), uncertain="zeros")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Edema": "2.0"}, r"train\.csv, line 2: column Edema is '2\.0', expected 1\.0, 0\.0, -1"),
        ({"Frontal/Lateral": "front"}, r"line 2: column Frontal/Lateral is 'front'"),
        ({"Path": "image.jpg"}, r"line 2: column Path is not of the form"),
        ({"Path": "x/train/../../patient1/y.jpg"}, r"line 2: column Path is not of the form"),
    ],
)
def test_unknown_values_name_file_line_and_column(write_chexpert, many, change, message):
    many[0][0] |= change
    with pytest.raises(SourceError, match=message):
        read_chexpert(write_chexpert(*many), uncertain="zeros")


def test_a_line_that_ends_early_is_named(write_chexpert, many):
    folder = write_chexpert(*many)
    text = (folder / "train.csv").read_text().rstrip()
    (folder / "train.csv").write_text(text.rsplit(",", 8)[0])
    with pytest.raises(SourceError, match=r"line 17: .*ends too early"):
        read_chexpert(folder, uncertain="zeros")


def test_a_repeated_image_is_refused(write_chexpert, many):
    train, valid = many
    with pytest.raises(SourceError, match="1 listed more than once"):
        read_chexpert(write_chexpert([*train, train[0]], valid), uncertain="zeros")


def test_no_test_images_is_an_error(write_chexpert, many):
    with pytest.raises(SourceError, match="expected images for test, found none"):
        read_chexpert(write_chexpert(many[0], []), uncertain="zeros")


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0-small/", "CheXpert-v1.0/", "a/b/CheXpert/", ""])
def test_whatever_stands_before_the_split_is_dropped(write_chexpert, many, prefix):
    for row in many[0]:
        row["Path"] = prefix + row["Path"].split("/", 1)[1]
    dataset = read_chexpert(write_chexpert(*many), uncertain="zeros")
    assert "train/patient00001/study1/view1_frontal.jpg" in dataset.images


def test_lateral_views_are_counted(write_chexpert, chexpert_row, many):
    many[0].append(chexpert_row(path(1, view="view2_lateral"), view="Lateral"))
    dataset = read_chexpert(write_chexpert(*many), uncertain="zeros")
    assert dict(dataset.left_out) == {"lateral view in train.csv": 1}


def write_labels(folder, name: str, paths: list[str]) -> None:
    """As CheXlocalize releases them: Path and labels, no column of views."""
    lines = [f"Path,{','.join(LABELS)}", *(f"{one},1.0,0.0,0.0,1.0,0.0" for one in paths)]
    (folder / name).write_text("\n".join(lines) + "\n")


def test_official_test_set_with_valid_for_choices(write_chexpert, many):
    folder = write_chexpert(*many)
    paths = [path(64741, split="test"), path(64741, view="view2_lateral", split="test")]
    write_labels(folder, "test_labels.csv", [paths[0].split("/", 1)[1], paths[1]])
    dataset = read_chexpert(folder, uncertain="zeros", test="test")
    assert dataset.test.images == ("test/patient64741/study1/view1_frontal.jpg",)
    assert dataset.test.targets.tolist() == [[1, 0, 0, 1, 0]]
    assert {image.split("/")[1] for image in dataset.validate.images} == {
        "patient64541", "patient64542",
    }  # fmt: skip
    assert len(dataset.train) == 16
    assert dataset.left_out["lateral view in test_labels.csv"] == 1


def test_chexlocalizes_name_for_the_validation_set(write_chexpert, many):
    folder = write_chexpert(*many)
    (folder / "valid.csv").unlink()
    write_labels(folder, "val_labels.csv", [path(64541, split="val")])
    dataset = read_chexpert(folder, uncertain="zeros")
    assert dataset.test.images == ("val/patient64541/study1/view1_frontal.jpg",)


BATCHES = ["CheXpert-v1.0 batch 1 (validate & csv)"] + [
    f"CheXpert-v1.0 batch {number + 1} (train {number})" for number in (1, 2, 3)
]


def batch_of(listed: str) -> str:
    """Where the publisher's archives at full size put an image: three batches have no train/."""
    _, part, rest = listed.split("/", 2)
    number = int(rest[len("patient") :].split("/")[0])
    return f"{BATCHES[0]}/valid/{rest}" if part == "valid" else f"{BATCHES[1 + number % 3]}/{rest}"


LAYOUTS = {
    "as the csv says": lambda listed: listed.split("/", 1)[1],
    "four batches": batch_of,
    "four batches in the container's folder": lambda listed: f"u20210408/{batch_of(listed)}",
    "CheXlocalize's val": lambda listed: listed.split("/", 1)[1].replace("valid/", "val/"),
    "train_data": lambda listed: listed.split("/", 1)[1].replace("train/", "train_data/"),
    "converted": lambda listed: f"png/{listed.split('/', 1)[1][:-3]}PNG",
    "converted batches": lambda listed: batch_of(listed)[:-3] + "dcm",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_is_found_however_the_copy_lies(write_chexpert, many, layout):
    folder = write_chexpert(*many)
    listed = [row["Path"] for rows in many for row in rows]
    files = [LAYOUTS[layout](path) for path in listed]
    distractors = ["train.csv", "patient00001/notes.txt", "heatmaps/patient00001_view1.png"]
    dataset = read_chexpert(folder, [*distractors, *files], uncertain="zeros")
    assert set(dataset.images) == set(files)
    plain = read_chexpert(folder, uncertain="zeros")
    for name, rows in dataset.splits.items():
        assert (rows.samples, rows.patients) == (
            plain.splits[name].samples,
            plain.splits[name].patients,
        )
        assert rows.targets.tolist() == plain.splits[name].targets.tolist()
        own = [image.rsplit(".", 1)[0].split("patient")[1] for image in rows.images]
        assert own == [i.rsplit(".", 1)[0].split("patient")[1] for i in plain.splits[name].images]


def test_the_published_file_goes_before_a_copy_and_splits_are_not_mixed_up(write_chexpert, many):
    view = "patient00001/study1/view1_frontal"
    order = [f"train/{view}.jpg", f"a/train/{view}.png", f"a/{view}.jpg"]
    folder = write_chexpert(*many)
    for lost, expected in enumerate([*order, f"train/{view}.jpg"]):  # at last as the csv has it
        dataset = read_chexpert(folder, [f"valid/{view}.jpg", *order[lost:]], uncertain="zeros")
        assert expected in dataset.images
        assert f"valid/{view}.jpg" not in dataset.images


def test_the_csv_files_of_batch_1_are_found_from_the_folder_above(write_chexpert, many):
    folder = write_chexpert(*many)
    inner = folder / BATCHES[0]
    inner.mkdir()
    for name in ("train.csv", "valid.csv"):
        (folder / name).rename(inner / name)
    files = [batch_of(row["Path"]) for rows in many for row in rows]
    assert set(read_chexpert(folder, files, uncertain="zeros").images) == set(files)
    below = [path.removeprefix(f"{BATCHES[0]}/") for path in files if path.startswith(BATCHES[0])]
    with pytest.raises(SourceError, match=r"one batch\n.*the folder above, .*all four batches"):
        read_chexpert(inner, below, uncertain="zeros")


def test_chexlocalizes_csv_says_valid_of_images_in_val(write_chexpert, many):
    folder = write_chexpert(*many)
    (folder / "valid.csv").unlink()
    inner = folder / "chexlocalize" / "CheXpert"
    inner.mkdir(parents=True)
    numbers = (64541, 64542, 64543)
    write_labels(inner, "val_labels.csv", [path(n, split="valid") for n in numbers])
    files = [f"chexlocalize/CheXpert/val/patient{n}/study1/view1_frontal.jpg" for n in numbers]
    assert read_chexpert(folder, files, uncertain="zeros").test.images == tuple(files)


def test_the_official_test_needs_its_labels(write_chexpert, many):
    with pytest.raises(SourceError, match=r"expected test_labels\.csv or test\.csv"):
        read_chexpert(write_chexpert(*many), uncertain="zeros", test="test")


def test_a_name_that_tells_no_view_is_an_error(write_chexpert, many):
    folder = write_chexpert(*many)
    write_labels(folder, "test_labels.csv", ["test/patient64741/study1/image.jpg"])
    with pytest.raises(SourceError, match=r"test_labels.csv, line 2: expected frontal or lateral"):
        read_chexpert(folder, uncertain="zeros", test="test")


def test_labels_are_the_five_in_their_order():
    assert LABELS == ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
