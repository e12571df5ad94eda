"""Phrase grounding from MS-CXR's layout and stored images to metrics and a head."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from demo_project import MACHINE, build
from grid_encoder import Brightness
from jobs import make_job
from watched_computing import nothing_outside

from lapvqa import storage
from lapvqa.datasets.image_folder import digest
from lapvqa.errors import ConfigError
from lapvqa.evaluation import contract, features
from lapvqa.evaluation.evaluate import EncoderSet, evaluate, pipeline_encoders
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.heads import checkpoint
from lapvqa.identity import Keyring, key_id
from lapvqa.images.geometry import fit_of
from lapvqa.images.shards import add_shard
from lapvqa.params import (
    BootstrapParams,
    EvaluateParams,
    GroundingHeadParams,
    ModelParams,
    PgParams,
    RecipeParams,
    load_params,
)
from lapvqa.pg import judge as pg_judge
from lapvqa.pg import scoring
from lapvqa.pg.heads import VisualGroundingHead
from lapvqa.pg.task import TASK
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import EXCLUDED, GROUNDING_PREDICTIONS, IMAGES, INVENTORY, STUDIES

SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
)  # fmt: skip
KEY = b"a key of the tests, long enough to be one"
SPLITS = {"train": 40, "val": 6, "test": 12}
SIDE, NATIVE = 126, 378
"""Of a square and of an image, which is stored as it is, with a margin right and below."""

QUICK = PgParams(
    head=GroundingHeadParams(d_model=16, num_layers=1),
    recipe=RecipeParams(epochs=2, batch_size=16, lr=1e-3),
)
COLUMNS = (
    "dicom_id", "category_name", "label_text", "path", "x", "y", "w", "h", "image_width",
    "image_height", "split",
)  # fmt: skip


@dataclass(frozen=True)
class GroundingProject:
    """A project with an archive of squares, and how to judge encoders on it."""

    paths: Project
    shipped: EvaluateParams

    @property
    def table(self) -> Path:
        folder = self.paths.root / load_params(self.paths.params).inventory.ms_cxr
        return folder / "MS_CXR_Local_Alignment_v1.1.0.csv"

    def judge(
        self, encoders: dict[str, ImageEncoder], chosen: PgParams = QUICK, name: str = "results"
    ) -> tuple[dict[str, Any], pa.Table, Path]:
        judged = EncoderSet(lambda: encoders, self.paths.root / name)
        params = self.shipped.model_copy(update={"pg": chosen})
        recorder = Recorder(self.paths.root / "record.jsonl", stage="evaluate", quiet=True)
        with nothing_outside():
            evaluate(TASK, judged, params, make_job(self.paths, MACHINE, recorder))
        recorder.close()
        folder = self.paths.root / name / "pg"
        return read_metrics(folder), read_predictions(folder), folder


def read_metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def read_predictions(folder: Path) -> pa.Table:
    return storage.read_table(folder / "predictions.parquet", GROUNDING_PREDICTIONS, made_by="x")


def square(rows: int, column: int) -> tuple[int, int, int, int]:
    """Return x, y, width and height in native pixels."""
    return column * SIDE, rows * SIDE, SIDE, SIDE


@pytest.fixture
def shipped(repository: Path) -> EvaluateParams:
    found = load_params(repository / "params.yaml").evaluate
    return found.model_copy(update={"common": BootstrapParams(bootstrap_draws=50)})


def write_archive(project: Project) -> list[list[object]]:
    """Store an image per patient: a square on each side at any height; return MS-CXR's rows."""
    keyring, generator = Keyring(KEY), np.random.default_rng(0)
    pixels, images, studies, rows = [], [], [], []
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    fit = fit_of(NATIVE, NATIVE)
    for number, split in enumerate(splits):
        image = np.zeros((384, 384), dtype=np.uint8)
        image[:NATIVE, :NATIVE] = generator.integers(10, 40, (NATIVE, NATIVE), dtype=np.uint8)
        dicom, subject, study = f"image-{number}", 10000000 + number, 50000000 + number
        for column, side in ((0, "right"), (2, "left")):  # as the reader sees the patient
            x, y, w, h = square(int(generator.integers(3)), column)
            image[y : y + h, x : x + w] = 220
            path = f"files/p10/p{subject}/s{study}/{dicom}.jpg"
            text = f"opacity on the {side}"
            box = (x, y, w, h)
            rows.append([dicom, "Lung Opacity", text, path, *box, NATIVE, NATIVE, split])
        common = {
            "study_key": keyring.study(str(study)),
            "patient_key": keyring.patient(str(subject)),
            "split": "test",
        }
        pixels.append(image)
        studies.append({**common, "study_order": 0, "num_images": 1, "identity_flags": []})
        images.append(
            {
                **common, "image_key": keyring.image(dicom), "view": "PA", "row": number,
                "native_rows": NATIVE, "native_cols": NATIVE, "scale": fit.scale,
                "offset_x": fit.offset_x, "offset_y": fit.offset_y, "photometric": "MONOCHROME2",
                "bits_stored": 8, "transfer_syntax": "image/png", "voi": "rendered",
                "file_sha256": f"{number:064x}", "pixels_sha256": digest(image),
                "decoded_sha256": digest(image),
            }
        )  # fmt: skip
    shard = add_shard(project.images_dir, [one["image_key"] for one in images], np.stack(pixels))
    tables = ((project.images, images, IMAGES), (project.studies, studies, STUDIES))
    for path, entries, schema in tables:
        listed = [{**one, "shard": shard} if schema is IMAGES else one for one in entries]
        storage.write_table(path, pa.Table.from_pylist(listed, schema=schema), schema)
    storage.write_table(project.excluded, EXCLUDED.empty_table(), EXCLUDED)
    storage.write_bytes(project.state / "deid.key", KEY)
    empty = INVENTORY.empty_table().replace_schema_metadata({b"deid_key": key_id(KEY).encode()})
    storage.write_table(project.inventory("source"), empty, INVENTORY)
    return rows


def write_ms_cxr(project: GroundingProject, rows: list[list[object]]) -> None:
    project.table.parent.mkdir(parents=True, exist_ok=True)
    with project.table.open("w", newline="") as handle:
        csv.writer(handle).writerows([COLUMNS, *rows])
    listed = [{"path": project.table.name, "size": 1, "mtime_ns": 1}]
    table = pa.Table.from_pylist(listed, schema=INVENTORY)
    storage.write_table(project.paths.inventory("ms_cxr"), table, INVENTORY)


@pytest.fixture
def rows_and_project(
    tmp_path: Path, repository: Path, shipped: EvaluateParams
) -> tuple[list[list[object]], GroundingProject]:
    shutil.copy(repository / "params.yaml", tmp_path)
    project = GroundingProject(Project(tmp_path), shipped)
    rows = write_archive(project.paths)
    write_ms_cxr(project, rows)
    return rows, project


@pytest.fixture
def project(rows_and_project: tuple[list[list[object]], GroundingProject]) -> GroundingProject:
    return rows_and_project[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return build(tmp_path_factory, tmp_path_factory.mktemp("grounding"), SIZES)


def run_demo(project: Project, params: EvaluateParams, chosen: PgParams) -> dict[str, Any]:
    recorder = Recorder(project.record("evaluate"), stage="evaluate", quiet=True)
    job = make_job(project, MACHINE, recorder)
    evaluate(TASK, pipeline_encoders(job), params.model_copy(update={"pg": chosen}), job)
    recorder.close()
    return read_metrics(project.result_dir("pg"))


class TestDemo:
    """The stage with the pipeline's own encoder, on the demo's own tables."""

    def test_from_files_to_metrics(self, demo: Project, shipped: EvaluateParams) -> None:
        metrics = run_demo(demo, shipped, QUICK.model_copy(update={"split": "patient"}))
        folder = demo.result_dir("pg")
        assert metrics["status"] == contract.OK
        assert set(metrics["systems"]) == {"trained", "untrained"}
        protocol = metrics["protocol"]
        assert protocol["dataset"] == "MS-CXR"
        assert protocol["split"] == "patient"
        assert protocol["trained_on_several_boxes"] == pg_judge.TARGETS["union"]
        assert protocol["phrase_encoder"].startswith("words")
        assert protocol["phrases_test"] == metrics["num_samples"] > 0
        assert protocol["encoder_sha256_trained"] != protocol["encoder_sha256_untrained"]
        listed = json.loads((folder / "extra" / "files.json").read_text())
        assert listed == ["head.pt"]
        parts = [
            [row for row in read_predictions(folder).to_pylist() if row["system"] == system]
            for system in ("trained", "untrained")
        ]
        samples = [[row["sample"] for row in part] for part in parts]
        assert samples[0] == samples[1] == sorted(samples[0])
        assert np.min([row["found_box"] for row in parts[0]]) >= 0
        assert np.max([row["found_box"] for row in parts[0]]) <= 384

    def test_without_training_phrases_it_is_not_computed(
        self, demo: Project, shipped: EvaluateParams
    ) -> None:
        metrics = run_demo(demo, shipped, QUICK.model_copy(update={"split": "archive"}))
        assert metrics["status"] == contract.NOT_COMPUTED
        assert metrics["reason"] == "MS-CXR has no train phrase about the images stored here"


def test_without_the_data_it_is_not_computed_and_says_what_to_set(
    project: GroundingProject,
) -> None:
    project.table.unlink()
    storage.write_table(project.paths.inventory("ms_cxr"), INVENTORY.empty_table(), INVENTORY)
    metrics, predictions, folder = project.judge({"one": Brightness()})
    assert metrics["status"] == contract.NOT_COMPUTED
    assert "inventory.ms_cxr" in metrics["reason"]
    assert "paths.ms_cxr" in metrics["reason"]
    assert predictions.num_rows == 0
    assert all((folder / name).exists() for name in ("curves.csv", "headline.json", "extra"))


def test_an_archive_that_holds_none_of_the_images_has_no_result(
    rows_and_project: tuple[list[list[object]], GroundingProject],
) -> None:
    rows, project = rows_and_project
    strange = [[f"x{row[0]}", *row[1:3], str(row[3]).replace("/image", "/ximage"), *row[4:]]
               for row in rows]  # fmt: skip
    write_ms_cxr(project, strange)
    metrics, predictions, _ = project.judge({"one": Brightness()})
    assert metrics["status"] == contract.NOT_COMPUTED
    assert "found none among" in metrics["reason"]
    assert predictions.num_rows == 0


def test_a_lost_key_is_an_error(project: GroundingProject) -> None:
    (project.paths.state / "deid.key").unlink()
    with pytest.raises(ConfigError, match="found none"):
        project.judge({"one": Brightness()})


def test_a_head_that_can_learn_does_and_from_permuted_truth_it_does_not(
    rows_and_project: tuple[list[list[object]], GroundingProject],
) -> None:
    rows, project = rows_and_project
    able = PgParams(
        head=GroundingHeadParams(d_model=32, num_layers=2),
        recipe=RecipeParams(epochs=40, batch_size=8, lr=2e-3),
    )
    metrics, predictions, folder = project.judge({"seeing": Brightness()}, able)
    assert metrics["systems"]["seeing"]["miou"]["value"] > 0.7
    found = {
        phrase: [row["found_box"] for row in predictions.to_pylist() if row["phrase"] == phrase]
        for phrase in ("opacity on the right", "opacity on the left")
    }
    centres = [np.mean([box[0] + box[2] for box in boxes]) / 2 for boxes in found.values()]
    assert centres == pytest.approx([SIDE / 2, NATIVE - SIDE / 2], abs=20)
    facts = checkpoint.load(VisualGroundingHead, folder / "extra" / "head.pt", vis_dim=3).facts
    assert facts["encoder"] == Brightness.about
    assert facts["epoch"] == metrics["protocol"]["epoch_seeing"]
    assert facts["val_miou"] == pytest.approx(
        metrics["protocol"]["validation_score_seeing"], abs=1e-6
    )
    assert facts["val_acc50"] > 0.7
    boxes = [row[4:8] for row in rows if row[-1] == "train"]
    for row, box in zip(rows, [*boxes[21:], *boxes[:21]], strict=False):
        row[4:8] = box
    write_ms_cxr(project, rows)
    metrics, _, _ = project.judge({"seeing": Brightness()}, able, "permuted")
    assert metrics["systems"]["seeing"]["miou"]["value"] < 0.4


def test_without_validation_phrases_the_last_epoch_is_kept(
    rows_and_project: tuple[list[list[object]], GroundingProject],
) -> None:
    rows, project = rows_and_project
    write_ms_cxr(project, [row for row in rows if row[-1] != "val"])
    metrics, _, folder = project.judge({"one": Brightness()})
    assert metrics["protocol"]["phrases_validate"] == 0
    assert metrics["protocol"]["epoch_one"] == 2
    assert metrics["protocol"]["validation_score_one"] is None
    head = checkpoint.load(VisualGroundingHead, folder / "extra" / "head.pt")
    assert np.isnan(head.facts["val_miou"])


def test_equal_input_gives_equal_bytes(project: GroundingProject) -> None:
    _, _, first = project.judge({"one": Brightness()}, name="first")
    torch.manual_seed(123)
    _, _, second = project.judge({"one": Brightness()}, name="second")
    for name in ("predictions.parquet", "metrics.json", "extra/head.pt"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("mode", ["frozen", "native"])
def test_a_native_recipe_trains_a_copy_of_the_encoder_and_writes_it(
    project: GroundingProject, mode: str
) -> None:
    encoder = Brightness()
    recipe = QUICK.recipe.model_copy(update={"encoder": mode, "encoder_lr": 1e-2})
    metrics, _, folder = project.judge(
        {"one": encoder}, QUICK.model_copy(update={"recipe": recipe})
    )
    assert encoder.scale.item() == 1
    known = metrics["protocol"]["encoder_sha256_one"]
    assert known == features.encoder_digest(Brightness())  # what it was, not what it became
    trained = folder / "extra" / "encoder.pt"
    assert trained.exists() is (mode == "native")
    if mode == "native":
        weights = torch.load(trained, weights_only=True)
        assert set(weights) == set(encoder.state_dict())
        assert weights["scale"].item() != 1


def test_several_seeds_are_several_heads_and_metrics_their_mean(project: GroundingProject) -> None:
    recipe = QUICK.recipe.model_copy(update={"seed": 3, "seeds": 2})
    encoders: dict[str, ImageEncoder] = {"one": Brightness()}
    both, predictions, folder = project.judge(encoders, QUICK.model_copy(update={"recipe": recipe}))
    single = []
    for seed in (3, 4):
        alone = recipe.model_copy(update={"seed": seed, "seeds": 1})
        single.append(
            project.judge(encoders, QUICK.model_copy(update={"recipe": alone}), f"seed{seed}")
        )
    assert set(predictions["system"].to_pylist()) == {"one", "one@1"}
    assert set(both["systems"]) == {"one"}
    for metric, found in both["systems"]["one"].items():
        values = [metrics["systems"]["one"][metric]["value"] for metrics, _, _ in single]
        assert found["value"] == pytest.approx(np.mean(values), abs=1e-6), metric
        assert both["seeds"]["one"][metric]["values"] == pytest.approx(values, abs=1e-6)
        assert both["seeds"]["one"][metric]["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    assert both["seeds"]["one"]["miou"]["sd"] > 0
    first = single[0][2]
    head = "extra/head.pt"  # the published one is the first seed's
    assert (folder / head).read_bytes() == (first / head).read_bytes()
    assert (folder / "curves.csv").read_bytes() == (first / "curves.csv").read_bytes()


def test_boxes_are_those_of_the_squares_in_stored_pixels(project: GroundingProject) -> None:
    _, predictions, _ = project.judge({"one": Brightness()})
    assert predictions.num_rows == 2 * SPLITS["test"]
    for row in predictions.to_pylist():
        x0, y0, x1, y1 = row["true_boxes"][0]
        assert (x1 - x0, y1 - y0) == pytest.approx((SIDE, SIDE))
        assert x0 == pytest.approx(0 if row["phrase"].endswith("right") else 2 * SIDE)


class TestSeveralBoxes:
    BOXES = np.array([[10.0, 20, 30, 40], [100, 30, 150, 60]])

    def test_the_target_encloses_all_or_is_the_largest(self) -> None:
        assert pg_judge.target_box(self.BOXES, "union").tolist() == [10, 20, 150, 60]
        assert pg_judge.target_box(self.BOXES, "best").tolist() == [100, 30, 150, 60]
        assert pg_judge.target_box(self.BOXES[:1], "best").tolist() == self.BOXES[0].tolist()

    def test_scored_again_by_the_rule_that_made_them(
        self, rows_and_project: tuple[list[list[object]], GroundingProject]
    ) -> None:
        rows, project = rows_and_project
        several = [[*row[:2], "opacities on both sides", *row[3:]] for row in rows]
        write_ms_cxr(project, several)
        found = {}
        for rule in ("union", "best"):
            chosen = QUICK.model_copy(update={"several_boxes": rule})
            metrics, predictions, folder = project.judge({"one": Brightness()}, chosen, rule)
            assert predictions.num_rows == SPLITS["test"]
            assert {len(row["true_boxes"]) for row in predictions.to_pylist()} == {2}
            assert metrics["protocol"]["scored_several_boxes"] == rule
            contract.score(TASK, folder=folder, common=project.shipped.common)
            assert read_metrics(folder) == metrics
            found[rule] = metrics["systems"]["one"]["miou"]["value"]
            expected = scoring.measure(predictions, several=rule)
            value = expected.statistic(np.ones((1, predictions.num_rows)))[0, 0]
            assert found[rule] == pytest.approx(value, abs=1e-6)
        assert found["union"] != found["best"]
