"""Abnormality detection from a folder in VinDr-CXR's layout to metrics, heads and pictures."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from grid_encoder import Brightness
from jobs import make_job
from PIL import Image
from watched_computing import as_on_a_gpu, calls, nothing_outside

from lapvqa import inventory, storage
from lapvqa.ad import judge as ad_judge
from lapvqa.ad.heads import DetectionHead
from lapvqa.ad.task import TASK
from lapvqa.datasets import image_folder
from lapvqa.datasets.vindr import VindrImage
from lapvqa.errors import SourceError
from lapvqa.evaluation import contract, features
from lapvqa.evaluation.evaluate import EncoderSet, evaluate, pipeline_encoders
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.heads import checkpoint
from lapvqa.params import AdParams, DetectionHeadParams, RecipeParams, load_params
from lapvqa.schemas import DETECTION_PREDICTIONS, INVENTORY

SIDE, NATIVE = 28, 84
STORED_SIDE = 126  # 84 native pixels become 378 of the stored 384
TRAIN, TEST = 60, 16
NAME = "Nodule/Mass"
QUICK = AdParams(
    head=DetectionHeadParams(d_model=16, num_queries=3, num_enc_layers=1, num_dec_layers=1),
    recipe=RecipeParams(epochs=2, batch_size=16, lr=1e-3),
)


def write_images(folder: Path, part: str, count: int, seed: int) -> dict[str, list[float]]:
    """Write dark images with one bright square each, every fourth with none; id -> box."""
    (folder / part).mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    boxes: dict[str, list[float]] = {}
    for number in range(count):
        pixels = generator.integers(10, 40, (NATIVE, NATIVE), dtype=np.uint8)
        name = f"{seed:016x}{number:016x}"
        boxes[name] = []
        if number % 4:
            x, y = (int(one) * SIDE for one in generator.integers(0, NATIVE // SIDE, 2))
            pixels[y : y + SIDE, x : x + SIDE] = 220
            boxes[name] = [x, y, x + SIDE, y + SIDE]
        Image.fromarray(pixels).save(folder / part / f"{name}.png")
    return boxes


def write_table(path: Path, boxes: dict[str, list[float]], readers: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        (name, *([reader] if reader else []), NAME if box else "No finding", *(box or [""] * 4))
        for name, box in boxes.items()
        for reader in readers
    ]
    header = ["image_id", *(["rad_id"] if readers[0] else []), "class_name"]
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([[*header, "x_min", "y_min", "x_max", "y_max"], *rows])


@pytest.fixture
def list_vindr(project) -> Callable[[], None]:
    def take() -> None:
        folder = project.root / load_params(project.params).inventory.vindr
        entries = inventory.scan(folder) if folder.is_dir() else []
        rows = [dict(zip(INVENTORY.names, entry, strict=True)) for entry in entries]
        table = pa.Table.from_pylist(rows, schema=INVENTORY)
        storage.write_table(project.inventory("vindr"), table, INVENTORY)

    take()
    return take


@pytest.fixture
def vindr(project, list_vindr) -> Path:
    """PhysioNet's form of the squares: 60 training images read by three, 16 test images."""
    folder = project.root / load_params(project.params).inventory.vindr
    tables = folder / "annotations"
    train = write_images(folder, "train", TRAIN, 1)
    write_table(tables / "annotations_train.csv", train, ("R1", "R2", "R3"))
    write_table(tables / "annotations_test.csv", write_images(folder, "test", TEST, 2), ("",))
    list_vindr()
    return folder


@pytest.fixture
def judge(project, machine, recorder, params, tmp_path):
    """Evaluate encoders of one's own; return metrics, predictions and the folder."""

    def run(
        encoders: dict[str, ImageEncoder], chosen: AdParams = QUICK, name: str = "results"
    ) -> tuple[dict, pa.Table, Path]:
        with nothing_outside():
            evaluate(
                TASK,
                EncoderSet(lambda: encoders, tmp_path / name),
                params.model_copy(update={"ad": chosen}),
                make_job(project, machine, recorder),
            )
        folder = tmp_path / name / "ad"
        predictions = storage.read_table(
            folder / "predictions.parquet", DETECTION_PREDICTIONS, made_by="x"
        )
        return json.loads((folder / "metrics.json").read_text()), predictions, folder

    return run


def run_stage(params, job):
    return evaluate(TASK, pipeline_encoders(job), params, job)


def rows_of(predictions: pa.Table, system: str) -> list[dict]:
    return [row for row in predictions.to_pylist() if row["system"] == system]


def test_without_the_data_it_is_not_computed_and_says_what_to_set(
    project, list_vindr, params, machine, recorder
):
    counts = run_stage(params, make_job(project, machine, recorder))
    folder = project.result_dir("ad")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert counts["status"] == metrics["status"] == contract.NOT_COMPUTED
    assert "inventory.vindr" in metrics["reason"]
    assert "paths.vindr" in metrics["reason"]
    assert str(project.root) not in metrics["reason"]
    names = ("predictions.parquet", "curves.csv", "headline.json", "extra")
    assert all((folder / name).exists() for name in names)


def test_without_a_training_image_it_is_not_computed(
    vindr, list_vindr, params, project, machine, recorder
):
    (vindr / "annotations" / "annotations_train.csv").write_text(
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
    )
    counts = run_stage(params, make_job(project, machine, recorder))
    assert counts["reason"] == "VinDr-CXR has no train image here"


class TestPipeline:
    """The stage with the pipeline's own encoder and its untrained twin."""

    @pytest.fixture
    def folder(self, vindr, params, project, machine, recorder) -> Path:
        run_stage(params.model_copy(update={"ad": QUICK}), make_job(project, machine, recorder))
        return project.result_dir("ad")

    def test_files(self, folder):
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["status"] == contract.OK
        assert (metrics["num_samples"], metrics["num_patients"]) == (TEST, TEST)
        assert set(metrics["systems"]) == {"trained", "untrained"}
        assert "trained-untrained" in metrics["differences"]
        listed = json.loads((folder / "extra" / "files.json").read_text())
        assert listed == ["examples.npz", "head.pt"]

    def test_protocol(self, folder):
        protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
        assert protocol["dataset"] == "VinDr-CXR"
        assert protocol["recipe_encoder"] == "frozen"
        assert protocol["boxes_that_no_query_matches_train"] == 0
        assert protocol["unreadable_images_train"] == 0
        counts = [protocol[f"images_{split}"] for split in ("train", "validate", "test")]
        assert counts == [54, 6, 16]
        assert protocol["matching"].startswith("Hungarian")
        assert protocol["encoder_sha256_trained"] != protocol["encoder_sha256_untrained"]
        assert 1 <= protocol["epoch_untrained"] <= 2

    def test_every_image_has_a_row_per_system_in_one_order(self, folder):
        predictions = storage.read_table(
            folder / "predictions.parquet", DETECTION_PREDICTIONS, made_by="x"
        )
        first, second = rows_of(predictions, "trained"), rows_of(predictions, "untrained")
        samples = [row["sample"] for row in first]
        assert samples == sorted(samples) == [row["sample"] for row in second]
        assert sum(not row["true_boxes"] for row in first) == TEST // 4
        for row in first:
            assert row["found_scores"] == sorted(row["found_scores"], reverse=True)
            assert len(row["found_boxes"]) == QUICK.head.num_queries
            assert 0 <= np.min(row["found_boxes"]) <= np.max(row["found_boxes"]) <= 384
            for box in row["true_boxes"]:
                assert (box[2] - box[0], box[3] - box[1]) == pytest.approx((STORED_SIDE,) * 2)

    def test_head_is_in_its_published_form(self, folder):
        loaded = checkpoint.load(DetectionHead, folder / "extra" / "head.pt", vis_dim=32)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert loaded.head.num_queries == QUICK.head.num_queries
        assert loaded.facts["encoder"] == metrics["protocol"]["encoder_trained"]
        assert loaded.facts["epoch"] == metrics["protocol"]["epoch_trained"]
        assert loaded.facts["val_map40"] == pytest.approx(
            metrics["protocol"]["validation_score_trained"], abs=1e-6
        )
        assert 0 <= loaded.facts["val_map50"] <= loaded.facts["val_map40"] + 1e-9

    def test_examples_are_test_images_with_boxes_first(self, folder):
        path = folder / "extra" / "examples.npz"
        with np.load(path) as examples:
            samples, pixels = examples["samples"].tolist(), examples["pixels"]
        predictions = storage.read_table(
            folder / "predictions.parquet", DETECTION_PREDICTIONS, made_by="x"
        )
        truth = {row["sample"]: row["true_boxes"] for row in rows_of(predictions, "trained")}
        assert pixels.shape == (12, 384, 384)
        assert pixels.dtype == np.uint8
        assert [bool(truth[one]) for one in samples] == [True] * 12
        for one, image in zip(samples, pixels, strict=True):
            x0, y0, x1, y1 = (round(edge) for edge in truth[one][0])
            assert image[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3].min() > 200
            image[y0 - 3 if y0 > 3 else 0 : y1 + 3, x0 - 3 if x0 > 3 else 0 : x1 + 3] = 0
            assert image.max() < 100
        with zipfile.ZipFile(path) as archive:
            assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_a_head_that_can_learn_does_and_from_permuted_truth_it_does_not(vindr, judge):
    able = AdParams(
        head=DetectionHeadParams(d_model=32, num_queries=4, num_enc_layers=1, num_dec_layers=1),
        recipe=RecipeParams(epochs=40, batch_size=8, lr=3e-3),
    )
    metrics, _, _ = judge({"seeing": Brightness()}, able)
    assert metrics["systems"]["seeing"]["mean_ap40"]["value"] > 0.6
    path = vindr / "annotations" / "annotations_train.csv"
    header, *lines = path.read_text().splitlines()
    ids = [line.split(",", 1)[0] for line in lines]
    rests = [line.split(",", 1)[1] for line in lines]
    moved = [f"{one},{rest}" for one, rest in zip(ids, [*rests[21:], *rests[:21]], strict=True)]
    path.write_text("\n".join([header, *moved]) + "\n")
    metrics, _, _ = judge({"seeing": Brightness()}, able, "permuted")
    assert metrics["systems"]["seeing"]["mean_ap40"]["value"] < 0.3


def test_equal_input_gives_equal_bytes(vindr, judge):
    _, _, first = judge({"one": Brightness()}, name="first")
    torch.manual_seed(123)
    _, _, second = judge({"one": Brightness()}, name="second")
    for name in ("predictions.parquet", "metrics.json", "extra/head.pt", "extra/examples.npz"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("mode", ["frozen", "native"])
def test_a_native_recipe_trains_a_copy_of_the_encoder_and_writes_it(vindr, judge, mode):
    encoder = Brightness()
    recipe = QUICK.recipe.model_copy(update={"encoder": mode, "encoder_lr": 1e-2})
    metrics, _, folder = judge({"one": encoder}, QUICK.model_copy(update={"recipe": recipe}))
    assert encoder.scale.item() == 1
    known = metrics["protocol"]["encoder_sha256_one"]
    assert known == features.encoder_digest(Brightness())  # what it was, not what it became
    trained = folder / "extra" / "encoder.pt"
    assert trained.exists() is (mode == "native")
    if mode == "native":
        assert torch.load(trained, weights_only=True)["scale"].item() != 1


def test_on_a_gpus_precision_every_module_is_computed_by_autocast(vindr, judge):
    recipe = QUICK.recipe.model_copy(update={"encoder": "native", "encoder_lr": 1e-2})
    with as_on_a_gpu(), calls() as seen:
        metrics, _, _ = judge({"one": Brightness()}, QUICK.model_copy(update={"recipe": recipe}))
    assert metrics["status"] == "ok"
    assert {"DetectionHead", "MultiheadAttention", "Linear"} <= set(seen)
    assert {name for name, states in seen.items() if states != {True}} == set()


def test_several_seeds_are_several_heads(vindr, judge):
    recipe = QUICK.recipe.model_copy(update={"seeds": 2})
    metrics, predictions, _ = judge(
        {"one": Brightness()}, QUICK.model_copy(update={"recipe": recipe})
    )
    assert set(predictions["system"].to_pylist()) == {"one", "one@1"}
    values = metrics["seeds"]["one"]["mean_ap40"]["values"]
    assert len(values) == 2
    assert metrics["systems"]["one"]["mean_ap40"]["value"] == pytest.approx(
        np.mean(values), abs=1e-6
    )


class TestUnreadable:
    def test_one_of_many_is_counted_and_left_out(self, vindr, judge, monkeypatch, list_vindr):
        monkeypatch.setattr(ad_judge, "MAX_UNREADABLE_SHARE", 0.02)
        path = sorted((vindr / "test").glob("*.png"))[1]
        path.write_bytes(b"no picture")
        list_vindr()
        metrics, predictions, _ = judge({"one": Brightness()})
        assert metrics["protocol"]["unreadable_images_test"] == 1
        assert metrics["protocol"]["unreadable_images_train"] == 0
        assert metrics["num_samples"] == predictions.num_rows == TEST - 1
        for row in predictions.to_pylist():  # boxes still belong to their images
            for box in row["true_boxes"]:
                assert (box[2] - box[0]) == pytest.approx(STORED_SIDE)

    def test_more_than_one_percent_stop_the_evaluation(self, vindr, judge, list_vindr, tmp_path):
        sorted((vindr / "train").glob("*.png"))[1].write_bytes(b"no picture")
        list_vindr()
        with pytest.raises(SourceError, match=r"1 of 76 images cannot be read.*_train\.csv, line"):
            judge({"one": Brightness()})
        assert not (tmp_path / "results").exists()


def test_boxes_and_pixels_of_one_sample_belong_together(vindr, project, machine):
    source = image_folder.open_folder("vindr", make_job(project, machine))
    data = ad_judge.open_data(
        ad_judge.read_vindr(vindr, source.files), source, make_job(project, machine)
    )
    for samples in data.splits.values():
        assert samples
        for sample in samples:
            pixels = data.images.read([sample.number])[0]
            assert (pixels.max() > 200) == bool(len(sample.boxes))
            for x0, y0, x1, y1 in sample.boxes.round().astype(int):
                assert pixels[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3].min() > 200


def test_a_film_of_the_test_is_not_learnt_from(vindr, project, machine):
    tested, copied = (min((vindr / split).glob("*.png")) for split in ("test", "train"))
    copied.write_bytes(tested.read_bytes())
    job = make_job(project, machine)
    source = image_folder.open_folder("vindr", job)
    data = ad_judge.open_data(ad_judge.read_vindr(vindr, source.files), source, job)
    assert data.counts["left_out_film_of_test"] == 1


def test_one_box_over_the_edge_stops_nothing(vindr, project, machine):
    path = vindr / "annotations" / "annotations_test.csv"
    rows = list(csv.reader(path.open()))
    row = next(row for row in rows[1:] if row[2])
    row[2:] = ["1", "1", str(1.1 * NATIVE), str(1.1 * NATIVE)]
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    source = image_folder.open_folder("vindr", make_job(project, machine))
    dataset = ad_judge.read_vindr(vindr, source.files)
    data = ad_judge.open_data(dataset, source, make_job(project, machine))
    assert data.counts["images_with_a_box_beyond_the_edge"] == 1
    assert data.counts["boxes_outside_the_image_left_out"] == 0
    assert max(sample.boxes.max(initial=0) for sample in data.splits["test"]) <= 381  # 378 + 3


def test_without_validation_images_the_last_epoch_is_kept(vindr, judge, monkeypatch):
    def without(*args, **kwargs):
        return replace(read(*args, **kwargs), validate=())

    read = ad_judge.read_vindr
    monkeypatch.setattr(ad_judge, "read_vindr", without)
    metrics, _, folder = judge({"one": Brightness()})
    assert metrics["protocol"]["epoch_one"] == 2
    assert metrics["protocol"]["validation_score_one"] is None
    assert np.isnan(checkpoint.load(DetectionHead, folder / "extra/head.pt").facts["val_map40"])


def test_without_a_true_box_validation_goes_by_the_loss(vindr, judge, monkeypatch):
    def emptied(image: VindrImage) -> VindrImage:
        nothing = np.zeros(0, dtype=np.int64)
        return replace(image, boxes=image.boxes[:0], classes=nothing, votes=nothing)

    def without(*args, **kwargs):
        found = read(*args, **kwargs)
        return replace(found, validate=tuple(emptied(one) for one in found.validate))

    read = ad_judge.read_vindr
    monkeypatch.setattr(ad_judge, "read_vindr", without)
    metrics, _, _ = judge({"one": Brightness()})
    assert metrics["protocol"]["validation_score_one"] < 0
