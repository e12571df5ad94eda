"""A finished project in miniature: every artefact that the page reads, written by hand."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from jobs import make_job

from lapvqa import storage
from lapvqa.evaluation import contract
from lapvqa.images.geometry import fit_image
from lapvqa.images.shards import add_shard
from lapvqa.inventory import NAMES
from lapvqa.machine import Machine
from lapvqa.params import BootstrapParams, ReportParams
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.report.page import run
from lapvqa.retrieval.task import TASK as RETRIEVAL
from lapvqa.schemas import (
    ANSWER_PREDICTIONS,
    COMPANIONS,
    DETECTION_PREDICTIONS,
    GROUNDING_PREDICTIONS,
    IMAGES,
    INVENTORY,
    PROBE_PREDICTIONS,
    REJECTS,
    RETRIEVAL_PREDICTIONS,
    RRG_PREDICTIONS,
    STUDIES,
    TOKENS,
)

CHEXPERT5 = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
NIH14 = [
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
]  # fmt: skip
NUM_STUDIES = 12

Json = dict[str, Any]


class ReportProject:
    """The folder of one finished run, and the way to make its page."""

    def __init__(self, root: Path) -> None:
        self.paths = Project(root)

    def inventory(self, name: str, **facts: str) -> None:
        """Write the list of an input folder, with what it says of the folder."""
        table = INVENTORY.empty_table().replace_schema_metadata(facts)
        storage.write_table(self.paths.inventory(name), table, INVENTORY)

    def render(self, examples: int = 4, patients: Literal["hide", "show"] = "hide") -> str:
        recorder = Recorder(self.paths.record("report"), stage="report")
        run(
            ReportParams(examples=examples, patients=patients),
            make_job(self.paths, Machine(), recorder),
        )
        recorder.close()
        return self.paths.report_page.read_text(encoding="utf-8")

    def metrics(self, task: str) -> Path:
        return self.paths.result_dir(task) / "metrics.json"

    def edit_metrics(self, task: str, **changes: Any) -> None:
        value = json.loads(self.metrics(task).read_text()) | changes
        storage.write_json(self.metrics(task), value)


@pytest.fixture
def project(finished: ReportProject, tmp_path: Path) -> ReportProject:
    """A finished run of twelve test studies, to be changed."""
    shutil.copytree(finished.paths.root, tmp_path, dirs_exist_ok=True)
    return ReportProject(tmp_path)


@pytest.fixture(scope="session")
def page(finished: ReportProject, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of that run."""
    root = tmp_path_factory.mktemp("page")
    shutil.copytree(finished.paths.root, root, dirs_exist_ok=True)
    return ReportProject(root).render()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> ReportProject:
    """The run that tests copy."""
    made = ReportProject(tmp_path_factory.mktemp("finished"))
    shutil.copy(repository / "params.yaml", made.paths.root)
    project = made.paths
    for name in NAMES:
        made.inventory(name, folder=f"demo/{name}", synthetic="yes")
    images, keys, pixels = _images()
    shard = add_shard(project.images_dir, keys, pixels)
    images = [{**image, "shard": shard} for image in images]
    storage.write_table(project.images, _table(images, IMAGES), IMAGES)
    storage.write_table(project.studies, _table(_studies(), STUDIES), STUDIES)
    storage.write_table(project.rejects, _table(_rejects(), REJECTS), REJECTS)
    kinds = ("companion", "other")
    beside = [{"path": kind, "kind": kind, "what": "x"} for kind in kinds]
    storage.write_table(project.companions, _table(beside, COMPANIONS), COMPANIONS)
    storage.write_table(project.token_rejects, _table(_token_rejects(), REJECTS), REJECTS)
    tokens = _table(_tokens(), TOKENS)
    storage.write_table(project.tokens_dir / "tokens-00000.parquet", tokens, TOKENS)
    for task, labels in (
        ("probe_chexpert", CHEXPERT5), ("probe_nih14", NIH14), ("probe_archive", CHEXPERT5),
    ):  # fmt: skip
        _write_result(project, task, _probe_predictions(labels), PROBE_PREDICTIONS)
        storage.write_json(made.metrics(task), probe_metrics(task, labels))
    _write_result(project, "rrg", _rrg_predictions(), RRG_PREDICTIONS)
    storage.write_json(made.metrics("rrg"), rrg_metrics())
    for task, rows in (("vqa", _vqa_predictions()), ("diffvqa", _diffvqa_predictions())):
        _write_result(project, task, rows, ANSWER_PREDICTIONS)
        storage.write_json(made.metrics(task), answer_metrics(task))
    _write_result(project, "ad", _detection_predictions(), DETECTION_PREDICTIONS)
    storage.write_json(made.metrics("ad"), detection_metrics())
    _write_detection_pictures(project)
    _write_result(project, "pg", _grounding_predictions(), GROUNDING_PREDICTIONS)
    storage.write_json(made.metrics("pg"), grounding_metrics())
    _write_retrieval(project)
    _write_model(project)
    return made


def _table(rows: list[Json], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema)


def _write_result(project: Project, task: str, rows: list[Json], schema: pa.Schema) -> None:
    path = project.result_dir(task) / "predictions.parquet"
    storage.write_table(path, _table(rows, schema), schema)


def _write_retrieval(project: Project) -> None:
    rows = [
        {
            "sample": study_key(index), "patient": f"patient{index // 2:025x}", "system": system,
            "report_rank": 1.0 + index * step, "film_rank": 1.0 + index, "reports": 8, "films": 8,
        }
        for step, system in ((0.5, "trained"), (1.0, "untrained"))
        for index in range(8)
    ]  # fmt: skip
    contract.publish(
        RETRIEVAL, _table(rows, RETRIEVAL_PREDICTIONS), protocol={"reports": 8},
        folder=project.result_dir("retrieval"), common=BootstrapParams(bootstrap_draws=50),
        contaminated=False,
    )  # fmt: skip


def study_key(index: int) -> str:
    return f"{(index * 2654435761) % 2**32:08x}{index:024x}"


def _chest(index: int) -> np.ndarray:
    """A rough chest: two dark lungs in a lighter body, brighter towards the middle."""
    y, x = np.mgrid[0:520, 0:440] / np.array([520, 440]).reshape(2, 1, 1)
    body = 190 * np.exp(-(((x - 0.5) / 0.42) ** 4)) * (0.7 + 0.3 * y)
    lungs = sum(
        np.exp(-((((x - side) / 0.17) ** 2 + ((y - 0.45) / 0.3) ** 2) ** 2)) for side in (0.3, 0.7)
    )
    heart = 60 * np.exp(
        -((((x - 0.56) / (0.1 + 0.005 * index)) ** 2 + ((y - 0.62) / 0.13) ** 2) ** 2)
    )
    ribs = 12 * np.sin(y * 60 - 6 * np.abs(x - 0.5))
    return np.clip(body - (130 - ribs) * lungs + heart, 0, 255).astype(np.uint8)


def _images() -> tuple[list[Json], list[str], np.ndarray]:
    rows, keys, stored = [], [], []
    syntaxes = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"]
    for index in range(NUM_STUDIES):
        pixels, fit = fit_image(_chest(index))
        keys.append(f"image{index:027x}")
        stored.append(pixels)
        rows.append(
            {
                "image_key": keys[-1], "study_key": study_key(index),
                "patient_key": f"patient{index // 2:025x}", "split": _split(index),
                "view": ["PA", "AP", ""][index % 3], "shard": "", "row": index,
                "native_rows": fit.native_rows, "native_cols": fit.native_cols,
                "scale": fit.scale, "offset_x": fit.offset_x, "offset_y": fit.offset_y,
                "photometric": ["MONOCHROME2", "MONOCHROME1"][index % 2], "bits_stored": 12,
                "transfer_syntax": syntaxes[index % 3], "voi": ["window", "lut"][index % 2],
                "file_sha256": f"{index:064x}", "pixels_sha256": f"{index:064x}",
                "decoded_sha256": f"{index:064x}",
            }
        )  # fmt: skip
    return rows, keys, np.stack(stored)


def _split(index: int) -> str:
    return "test" if index < 8 else "validate" if index < 10 else "train"


def _studies() -> list[Json]:
    return [
        {
            "study_key": study_key(index), "patient_key": f"patient{index // 2:025x}",
            "split": _split(index), "study_order": index % 2, "days_since_first": 30 * (index % 2),
            "study_date": None, "identity_flags": [],
            "num_images": 1, "report": None if index == 11 else "FINDINGS: The heart is enlarged.",
            "report_sha256": None if index == 11 else f"{index:064x}",
        }
        for index in range(NUM_STUDIES)
    ]  # fmt: skip


def _tokens() -> list[Json]:
    return [
        {
            "study_key": study_key(index), "patient_key": f"patient{index // 2:025x}",
            "split": _split(index), "token_ids": [50256, 1, 50256], "truncated": index == 0,
            "report_sha256": f"{index:064x}", "verdict": "findings", "sided": False,
            "spans": [{"name": "findings", "start": 10, "end": 32}],
        }
        for index in range(NUM_STUDIES - 1)
    ]  # fmt: skip


def _reject(kind: str, stage: str, reason: str, remedy: str) -> Json:
    return {
        "kind": kind, "file": "files/p10/p10001234/s50005678/secret.dcm", "stage": stage,
        "reason": reason, "detail": "expected an image, found none", "exception": None,
        "remedy": remedy, "sha256": None,
    }  # fmt: skip


def _rejects() -> list[Json]:
    return [
        _reject("file", "ingest", "not_dicom", "remove the file or export it again"),
        _reject("file", "ingest", "truncated", "copy the file again from its source"),
        _reject("file", "ingest", "truncated", "copy the file again from its source"),
        _reject("report", "ingest", "no_study", "put the report beside its study"),
    ]


def _token_rejects() -> list[Json]:
    return [_reject("study", "tokens", "no_report", "nothing: a study may lack a report")]


def _probe_predictions(labels: list[str]) -> list[Json]:
    generator = np.random.default_rng(0)
    rows = []
    for label in labels:
        for index in range(60):
            target = int(index % 3 == 0)
            for system, strength in (("trained", 2.2), ("untrained", 0.3)):
                score = 1 / (1 + math.exp(-(strength * (target - 0.5) + generator.normal())))
                rows.append(
                    {
                        "sample": f"sample{index}", "patient": f"patient{index // 2}",
                        "system": system, "label": label,
                        "target": None if label == "Hernia" else target, "score": score,
                    }
                )  # fmt: skip
    return rows


def _interval(value: float | None, width: float = 0.03) -> Json:
    if value is None:
        return {"value": None, "low": None, "high": None}
    return {"value": value, "low": round(value - width, 4), "high": round(value + width, 4)}


def probe_metrics(task: str, labels: list[str]) -> Json:
    systems: Json = {}
    for system, base in (("untrained", 0.55), ("trained", 0.91)):
        systems[system] = {
            "mean_auc": _interval(base),
            "mean_brier": _interval(0.3 - base / 4),
            "ece/Edema": _interval(0.08),
        } | {
            f"auc/{label}": _interval(
                None if label == "Hernia" else round(base + 0.01 * (place % 5 - 2), 4), 0.05
            )
            for place, label in enumerate(labels)
        }
    return {
        "task": task, "status": "ok", "primary": "mean_auc", "num_samples": 60,
        "num_patients": 30, "systems": systems,
        "differences": {"trained-untrained": {"mean_auc": _interval(0.36)}},
        "undefined": ["auc/Hernia: no positive sample"] if "Hernia" in labels else [],
        "protocol": {"interval_confidence": 0.95, "interval_draws": 1000, "head": {"c": [0.1, 1]}},
    }  # fmt: skip


RRG_METRICS = [
    "bleu1", "bleu2", "bleu3", "bleu4", "rouge1", "rouge2", "rougeL", "finding_f1_micro",
    "finding_f1_macro",
]  # fmt: skip


def rrg_metrics() -> Json:
    base = {
        "trained": 0.7, "untrained": 0.3, "head_trained": 0.65, "head_untrained": 0.28,
        "most_common": 0.25,
    }  # fmt: skip
    return {
        "task": "rrg", "status": "ok", "primary": "finding_f1_micro", "num_samples": 8,
        "num_patients": 4,
        "systems": {
            system: {
                key: _interval(round(value - 0.03 * place, 4))
                for place, key in enumerate(RRG_METRICS)
            }
            for system, value in base.items()
        },
        "differences": {
            "trained-untrained": {"finding_f1_micro": _interval(0.4)},
            "head_trained-head_untrained": {"finding_f1_micro": _interval(0.37)},
        },
        "undefined": ["meteor: not computed: no Java"], "protocol": {"interval_confidence": 0.95},
    }  # fmt: skip


def _rrg_predictions() -> list[Json]:
    texts: list[tuple[str, list[str] | None, str]] = [
        (
            "The heart is enlarged. There is a small left pleural effusion.",
            ["Cardiomegaly", "Pleural Effusion"],
            "The heart is mildly enlarged. No pneumothorax.",
        ),
        ("No acute cardiopulmonary process.", ["No Finding"], "The lungs are clear."),
        (
            "Moderate pulmonary edema.",
            ["Edema", "Fracture"],
            "Moderate pulmonary edema with cardiomegaly.",
        ),
        ("Large right pneumothorax.", None, "Large right pneumothorax."),
    ]
    rows = []
    for index in range(8):
        reference, truth, hypothesis = texts[index % 4]
        for system, text in (
            ("trained", hypothesis),
            ("untrained", "the the"),
            ("head_trained", reference),
            ("head_untrained", "No pneumothorax."),
            ("most_common", "No acute cardiopulmonary process."),
        ):
            rows.append(
                {
                    "sample": study_key(index), "patient": f"patient{index // 2:025x}",
                    "system": system, "reference": reference, "hypothesis": text, "truth": truth,
                }
            )  # fmt: skip
    return rows


def _metrics(task: str, systems: Json, primary: str, protocol: Json | None = None) -> Json:
    """A computed metrics.json of 8 samples and two systems."""
    trained, untrained = (systems[name][primary]["value"] for name in ("trained", "untrained"))
    return {
        "task": task, "status": "ok", "primary": primary, "num_samples": 8, "num_patients": 4,
        "systems": systems,
        "differences": {"trained-untrained": {primary: _interval(round(trained - untrained, 4))}},
        "undefined": [], "protocol": {"interval_confidence": 0.95, **(protocol or {})},
    }  # fmt: skip


def answer_metrics(task: str) -> Json:
    names = [
        "exact_match", "token_f1", "exact_match/closed", "exact_match/open",
        "exact_match/type:presence", "exact_match/type:location_of", "closed_f1", "closed_f1/yes",
        "bleu1", "bleu4", "rougeL", "cider_d", "meteor",
    ]  # fmt: skip
    systems = {
        system: {
            name: _interval(None if name == "meteor" else round(base - 0.01 * place, 4))
            for place, name in enumerate(names)
        }
        for system, base in (("trained", 0.72), ("untrained", 0.48))
    }
    return _metrics(task, systems, "exact_match" if task == "vqa" else "bleu4")


def image_key(index: int) -> str:
    return f"image{index:027x}"


def _vqa_predictions() -> list[Json]:
    questions = [
        ("presence", "is there a pleural effusion?", "Yes", "yes.", "no"),
        ("location_of", "where is the opacity?", "left lower lobe", "right lower lobe", "none"),
        ("presence", "is the heart enlarged?", "no", "no", "yes"),
        ("plane", "from which side was the image taken?", "PA", "", "AP"),
    ]
    rows = []
    for index in range(8):
        kind, question, reference, *answers = questions[index % 4]
        for system, answer in zip(("trained", "untrained"), answers, strict=True):
            rows.append(
                {
                    "sample": f"q{index}", "patient": f"patient{index // 2:025x}",
                    "system": system, "image": image_key(index), "reference_image": None,
                    "reversed": None, "type": kind, "question": question,
                    "reference": reference, "hypothesis": answer,
                }
            )  # fmt: skip
    return rows


def _diffvqa_predictions() -> list[Json]:
    asked = "what has changed compared to the reference image?"
    truth = "the main image has an additional finding of cardiomegaly than the reference image."
    rows = []
    for index in range(6):
        for system, answer in (("trained", truth), ("untrained", "nothing has changed.")):
            rows.append(
                {
                    "sample": f"pair{index}", "patient": f"patient{index:025x}",
                    "system": system, "image": image_key(index + 1),
                    "reference_image": image_key(index), "reversed": index == 2,
                    "type": "difference", "question": asked, "reference": truth,
                    "hypothesis": answer,
                }
            )  # fmt: skip
    return rows


def detection_metrics() -> Json:
    names = ["Aortic enlargement", "Cardiomegaly", "Pleural effusion", "Nodule/Mass"]
    systems = {
        system: {
            **{f"mean_{kind}": _interval(base) for kind in ("ap40", "ap50", "coco_ap")},
            **{f"ap40/{name}": _interval(round(base + 0.02 * k, 4))
               for k, name in enumerate(names)},
        }
        for system, base in (("trained", 0.34), ("untrained", 0.08))
    }  # fmt: skip
    return _metrics("ad", systems, "mean_ap40")


def _detection_predictions() -> list[Json]:
    heart, fluid = [150.0, 200.0, 300.0, 300.0], [50.0, 270.0, 130.0, 350.0]
    rows = []
    for index in range(8):
        ill = index < 6
        for system, shift in (("trained", 8.0), ("untrained", 90.0)):
            found = [[x + shift for x in heart], [200.0, 40.0, 260.0, 110.0], fluid]
            rows.append(
                {
                    "sample": f"vindr{index:03d}", "patient": f"vindr{index:03d}",
                    "system": system,
                    "true_labels": ["Cardiomegaly", "Pleural effusion"] if ill else [],
                    "true_boxes": [heart, fluid] if ill else [],
                    "found_labels": ["Cardiomegaly", "Aortic enlargement", "Nodule/Mass"],
                    "found_boxes": found, "found_scores": [0.91, 0.4, 0.05],
                }
            )  # fmt: skip
    return rows


def _write_detection_pictures(project: Project) -> None:
    extra = project.result_dir("ad") / "extra"
    extra.mkdir()
    chests = [fit_image(_chest(index))[0] for index in range(8)]
    np.savez(
        extra / "examples.npz",
        samples=np.array([f"vindr{index:03d}" for index in range(8)]),
        pixels=np.stack(chests),
    )


def grounding_metrics() -> Json:
    systems = {
        system: {name: _interval(base) for name in ("miou", "acc25", "acc50", "pointing")}
        for system, base in (("trained", 0.41), ("untrained", 0.19))
    }
    return _metrics("pg", systems, "miou", {"scored_several_boxes": "union"})


def _grounding_predictions() -> list[Json]:
    phrases = [
        ("Cardiomegaly", "moderately enlarged heart"),
        ("Pleural Effusion", "small left effusion"),
        ("Cardiomegaly", "severe cardiomegaly"),
    ]
    rows = []
    for index in range(6):
        category, phrase = phrases[index % 3]
        true = [120.0, 180.0, 280.0, 300.0]
        for system, shift in (("trained", 12.0), ("untrained", 80.0)):
            rows.append(
                {
                    "sample": f"phrase{index}", "patient": f"patient{index:025x}",
                    "system": system, "image": image_key(index), "category": category,
                    "phrase": phrase,
                    "true_boxes": [true, [20.0, 300.0, 90.0, 370.0]] if index == 1 else [true],
                    "found_box": [x + shift for x in true],
                }
            )  # fmt: skip
    return rows


def _write_model(project: Project) -> None:
    folder = project.model_dir("captioning")
    storage.write_json(
        folder / "card.json",
        {
            "model": {"image_size": 128, "width": 192},
            "num_parameters": 3_100_000,
            "use": "research",
        },
    )
    lines = ["step,epoch,loss,lr,val_loss"]
    for step in range(1, 601):
        loss = 1.2 + 8 * math.exp(-step / 90) + 0.08 * math.sin(step)
        validation = f"{1.35 + 8 * math.exp(-step / 90):.4f}" if step % 20 == 0 else ""
        lines.append(f"{step},{step // 20},{loss:.4f},0.001,{validation}")
    storage.write_bytes(folder / "history.csv", ("\n".join(lines) + "\n").encode())
