"""A project whose runs are told to the ledger without running: small files, real tables, no DVC.

Two patients, three films; the first run trains on one of them, the second, at another learning
rate, on both. Both leave the same bytes in models/captioning/epochs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from lapvqa import storage
from lapvqa.identity import DEMO_KEY, Keyring
from lapvqa.lineage import recording
from lapvqa.lineage.recording import Commit
from lapvqa.lineage.runs import Run
from lapvqa.project import DEMO_MARK, Project
from lapvqa.schemas import ANSWER_PREDICTIONS, IMAGES, INVENTORY, MEMBERS, MEMBERS_FILE
from lapvqa.uptodate.hashes import Hasher

REPOSITORY = Path(__file__).parents[2]
RAW = {"10000001": ("50000001", "50000002"), "10000002": ("50000003",)}
"""Raw patient ids -> raw study ids; one film each."""
KEYS = Keyring(DEMO_KEY)
COMMITS = ("a1" * 20, "b2" * 20)
SHARD = "images-0123456789abcdef.arrow"
TOKENS = "tokens-0123456789abcdef.parquet"

STAGES: dict[str, tuple[list[str], list[str]]] = {
    "inventory": ([], ["data/inventory"]),
    "ingest": (
        ["data/inventory/source.parquet", "lapvqa/dicom"], ["data/images", "data/images.parquet"],
    ),
    "tokens": (["data/images.parquet", "lapvqa/text"], ["data/tokens"]),
    "pretrain": (
        ["data/images", "data/tokens", "lapvqa/pretrain"],
        ["models/captioning/model_best.pt", "models/captioning/epochs",
         f"models/captioning/{MEMBERS_FILE}"],
    ),
    "export": (
        ["models/captioning/model_best.pt", "models/captioning/epochs"],
        ["models/captioning/encoder.safetensors"],
    ),
    "evaluate@vqa": (
        ["data/images.parquet", "models/captioning/encoder.safetensors"],
        ["results/vqa/predictions.parquet", "results/vqa/metrics.json"],
    ),
}  # fmt: skip


class Told:
    """The project, and how a stage of it is said to have run."""

    def __init__(self, root: Path) -> None:
        self.project = Project(root)
        self.lock: dict[str, Any] = {}
        self.ids: dict[tuple[str, int], str] = {}
        """(stage, number of the pipeline run) -> id of its entry."""

    def start(self) -> None:
        """Write the archive, the settings and the tables."""
        root = self.project.root
        shutil.copy(REPOSITORY / "params.yaml", root)
        stages = {
            name: {"cmd": "x", "deps": deps, "outs": outs, "params": [name.replace("@", ".")]}
            for name, (deps, outs) in STAGES.items()
        }
        with self.project.dvc_yaml.open("w") as file:
            YAML().dump({"stages": stages}, file)
        for name in ("dicom", "text", "pretrain"):
            self.write(f"lapvqa/{name}/code.py", name)
        self.write(f"demo/mimic-cxr/{DEMO_MARK}", "{}")
        for patient, studies in RAW.items():
            for study in studies:
                self.write(film_path(patient, study), film_bytes(study))
        self.write("demo/mimic-cxr/files/readme.txt", "no film")
        rows = [
            (film_path(p, s).removeprefix("demo/mimic-cxr/"), 9, 9) for p in RAW for s in RAW[p]
        ]
        columns = dict(zip(INVENTORY.names, map(list, zip(*rows, strict=True)), strict=True))
        source = pa.table(columns, schema=INVENTORY)
        storage.write_table(self.project.inventory("source"), source, INVENTORY)
        self.write(f"data/images/{SHARD}", "pixels")
        storage.write_table(self.project.images, _images(), IMAGES)
        studies = [KEYS.study(study) for of in RAW.values() for study in of]
        self.project.tokens_dir.mkdir(parents=True)
        pq.write_table(pa.table({"study_key": studies}), self.project.tokens_dir / TOKENS)

    def run_all(self, number: int, *, rate: float, patients: list[str]) -> None:
        """Tell a pipeline run: all stages the first time, else those from pretraining on."""
        self.write("models/captioning/model_best.pt", f"weights {rate}")
        self.write("models/captioning/epochs/none", "the same bytes in each run")
        storage.write_table(
            self.project.model_dir("captioning") / MEMBERS_FILE, _members(patients), MEMBERS
        )
        self.write("models/captioning/encoder.safetensors", f"encoder {rate}")
        _write_results(self.project, rate)
        names = list(STAGES) if number == 1 else ["pretrain", "export", "evaluate@vqa"]
        for place, name in enumerate(names):
            params = {"pretrain": {"pretrain": {"lr": rate, "seed": 0}}}.get(name, {})
            self.tell(name, number, started=1.6e9 + 1e8 * number + 60 * place, params=params)

    def tell(self, stage: str, number: int, *, started: float, params: dict[str, Any]) -> None:
        """Write a stage into dvc.lock as DVC would, and into the ledger as `lapvqa run` does."""
        hasher = Hasher(self.project, {})
        deps, outs = STAGES[stage]
        self.lock[stage] = {
            "cmd": "x",
            "deps": [{"path": path, "md5": hasher.md5(path)} for path in deps],
            "params": {"params.yaml": params},
            "outs": [{"path": path, "md5": hasher.md5(path)} for path in outs],
        }
        with self.project.dvc_lock.open("w") as file:
            YAML().dump({"schema": "2.0", "stages": self.lock}, file)
        values = {"trained.exact_match": 0.5, "trained.exact_match.low": 0.25,
                  "trained.exact_match.high": 0.75} if "@" in stage else {}  # fmt: skip
        run = Run(
            stage, started, 30.0, metrics=values,
            counts={"exact_match_trained": 0.5} if values else {},
            environment={"python": "3.11.9", "host": "here", "packages": {"torch": "2.13.0"}},
            prefect_flow_run=uuid("flow", number), prefect_task_run=uuid(stage, number),
            mlflow_run=hexes(stage, number), mlflow_pipeline_run=hexes("pipeline", number),
        )  # fmt: skip
        commit = Commit(COMMITS[number - 1], dirty=False)
        self.ids[stage, number] = recording.record(self.project, run, commit)

    def write(self, path: str, text: str) -> None:
        """Write a file of the project."""
        storage.write_bytes(self.project.root / path, text.encode())


def film_path(patient: str, study: str) -> str:
    return f"demo/mimic-cxr/files/p10/p{patient}/s{study}/film.dcm"


def film_bytes(study: str) -> str:
    return f"the bytes of the film of {study}"


def hexes(*facts: object) -> str:
    return hashlib.md5(repr(facts).encode()).hexdigest()


def uuid(*facts: object) -> str:
    text = hexes("uuid", *facts)
    return "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:]])


def _images() -> pa.Table:
    rows = []
    for patient, studies in RAW.items():
        for study in studies:
            known = {
                "image_key": KEYS.image(f"film {study}"), "study_key": KEYS.study(study),
                "patient_key": KEYS.patient(patient), "split": "train", "shard": SHARD,
                "row": len(rows),
                "file_sha256": hashlib.sha256(film_bytes(study).encode()).hexdigest(),
            }  # fmt: skip
            rows.append({
                field.name: known.get(field.name, "x" if pa.types.is_string(field.type) else 1)
                for field in IMAGES
            })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=IMAGES)


def _members(patients: list[str]) -> pa.Table:
    rows = [
        {
            "study_key": KEYS.study(study), "patient_key": KEYS.patient(patient),
            "role": "train" if patient in patients else "validate",
            "times": 4 if patient in patients else 0, "times_best": 2, "first_step": 1,
        }
        for patient, studies in RAW.items()
        for study in studies
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=MEMBERS)


def _write_results(project: Project, rate: float) -> None:
    rows = [
        {
            "sample": f"question {number}", "patient": KEYS.patient(patient), "system": "trained",
            "image": KEYS.image(f"film {study}"), "reference_image": None, "reversed": None,
            "type": "presence", "question": "is there a pneumothorax?", "reference": "yes",
            "hypothesis": "yes" if (number + (rate < 1)) % 2 else "no",
        }
        for number, (patient, study) in enumerate(
            (patient, study) for patient, studies in RAW.items() for study in studies
        )
    ]  # fmt: skip
    folder = project.result_dir("vqa")
    table = pa.Table.from_pylist(rows, schema=ANSWER_PREDICTIONS)
    storage.write_table(folder / "predictions.parquet", table, ANSWER_PREDICTIONS)
    interval = {"value": 0.5, "low": 0.25, "high": 0.75}
    metrics = {
        "task": "vqa", "status": "ok", "primary": "exact_match", "num_samples": 3,
        "num_patients": 2, "systems": {"trained": {"exact_match": interval}}, "differences": {},
        "seeds": {}, "undefined": [], "metrics": {},
        "protocol": {"samples_sha256": "c" * 64, "rate": rate},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
