"""A project's ledger of two generations of a model, written without running anything.

Its files lie in the project, so that a bundle can pack them; weights are a few bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from lapvqa import storage
from lapvqa.lineage import contents, ledger
from lapvqa.lineage.ledger import CODE, DECISION, RUN, TRAINED_ON
from lapvqa.lineage.row_numbers import PATIENT, STUDY, RowNumbers, packed
from lapvqa.lineage.runs import Run, code_listing
from lapvqa.project import Project

PATIENTS = [f"{number:016x}" for number in range(0xABCDEF0123456701, 0xABCDEF0123456709)]
"""Keys of patients: no export or bundle may hold one unless it was asked for."""

METRICS = {
    "task": "probe_nih14", "status": "ok", "primary": "mean_auc", "num_samples": 40,
    "num_patients": 8, "systems": {}, "protocol": {"samples_sha256": "5a" * 32},
}  # fmt: skip


def write(root: Path, generations: int = 2) -> Project:
    """Fill ``root`` with a ledger and the files that its last runs left."""
    project = Project(root)
    code = code_listing({"lapvqa/pretrain/train.py": "c" * 32})
    ledger.append(project, CODE, code)
    for generation in range(generations):
        _generation(project, generation, code["digest"])
    return project


def _generation(project: Project, generation: int, code: str) -> None:
    began = 1_790_000_000.0 + generation * 86400
    common: dict[str, Any] = {
        "commit": "1234567890abcdef" * 2 + "00000000", "dirty": False, "code": code,
        "environment": {"host": "gpu-node-7", "gpu": "1 x NVIDIA H200", "python": "3.11.7"},
        "prefect_flow_run": f"0000000{generation}-flow",
    }  # fmt: skip
    ingest = _run(
        project, Run("ingest", began, 61.5, params={"ingest": {"shard_images": 1000}}, **common),
        {"data/images.parquet": _images(generation), "data/studies.parquet": _studies(generation),
         "data/rejects.parquet": _rejects(generation), "data/images": b"shard"}, {},
    )  # fmt: skip
    searched = _run(
        project,
        Run("firewall", began + 80, 2.0, counts={"shared_images": 3, "excluded_images": 3},
            **common),
        {"data/firewall/account.json": {"shared": 3}}, {"data/images.parquet": ingest},
    )  # fmt: skip
    members = pa.table({"study_key": ["s" * 16], "patient_key": [PATIENTS[0]]})
    pretrain = _run(
        project,
        Run("pretrain", began + 100, 3600.25, counts={"train_pairs": 30 + generation, "steps": 90},
            params={"pretrain": {"objective": "captioning", "lr": 1e-4 * (generation + 1)}},
            **common),
        {"models/captioning/model_best.pt": b"best %d" % generation,
         "models/captioning/members.parquet": members},
        {"data/images": ingest, "data/images.parquet": ingest,
         "data/firewall/account.json": searched},
    )  # fmt: skip
    sampled = {
        "train": {
            "patients": packed(RowNumbers(project, PATIENT).number(PATIENTS[:4])),
            "studies": {"3": packed(RowNumbers(project, STUDY).number(["s" * 16]))},
        }
    }
    ledger.append(project, TRAINED_ON, {"run": pretrain, "path": "x", "roles": sampled})
    export = _run(
        project,
        Run("export", began + 4000, 5.0, params={"export": {"onnx": False}}, **common),
        {"models/captioning/encoder.safetensors": b"weights %d" % generation * 3000,
         "models/captioning/card.json": b"{}"},
        {"models/captioning/model_best.pt": pretrain},
    )  # fmt: skip
    value = 0.7123456 + generation / 100
    metrics = {
        f"{system}.{metric}{end}": value + shift + number / 50
        for shift, system in enumerate(("trained", "untrained"))
        for number, metric in enumerate(("mean_auc", "auc/Edema"))
        for end, shift in (("", 0.0), (".low", -0.05), (".high", 0.05))
    }
    predictions = pa.table({"patient": PATIENTS, "system": ["trained"] * len(PATIENTS)})
    _run(
        project,
        Run("evaluate@probe_nih14", began + 5000, 30.0, metrics=metrics,
            params={"evaluate.common": {"bootstrap_draws": 1000}}, **common),
        {"results/probe_nih14/metrics.json": METRICS,
         "results/probe_nih14/predictions.parquet": predictions},
        {"models/captioning/encoder.safetensors": export, "data/images.parquet": ingest},
    )  # fmt: skip
    ledger.append(project, DECISION, {"run": export, "verdict": "PROMOTE", "tests": 2})


def _run(project: Project, run: Run, outs: dict[str, Any], sources: dict[str, str]) -> str:
    """Write the files and the entry of a run; return the entry's id."""
    md5s, files = {}, {}
    for name, content in outs.items():
        path = project.root / name
        if isinstance(content, pa.Table):
            storage.write_table(path, content, content.schema)
        elif isinstance(content, dict):
            storage.write_json(path, content)
        elif name == "data/images":
            storage.write_bytes(path / "images-0.arrow", content)
        else:
            storage.write_bytes(path, content)
        if path.is_dir():
            md5s[name], files[name] = hashlib.md5(content).hexdigest() + ".dir", {"files": 1}
            continue
        md5s[name] = hashlib.md5(path.read_bytes()).hexdigest()
        files[name] = {
            "bytes": path.stat().st_size, "sha256": storage.sha256_file(path),
            **contents.facts(path),
        }  # fmt: skip
    told = Run(**{**run.payload(), "outs": md5s, "files": files, "sources": sources})
    deps = dict.fromkeys(sources, "d" * 32)
    return ledger.append(project, RUN, {**told.payload(), "deps": deps})


def _images(generation: int) -> pa.Table:
    count = 10 + generation
    return pa.table(
        {
            "split": ["train"] * (count - 4) + ["validate"] * 2 + ["test"] * 2,
            "view": ["AP"] * 5 + ["PA"] * (count - 6) + [""],
            "patient_key": [PATIENTS[0]] * count,
        }
    )


def _studies(generation: int) -> pa.Table:
    count = len(PATIENTS)
    return pa.table(
        {
            "split": ["train"] * (count - 2) + ["validate", "test"],
            "patient_key": PATIENTS,
            "report_sha256": ["a" * 64] * (count - 1 - generation) + [None] * (1 + generation),
        }
    )


def _rejects(generation: int) -> pa.Table:
    return pa.table(
        {
            "kind": ["file"] * 3 + ["study"],
            "reason": ["DUPLICATE_UID"] * (2 - generation)
            + ["NOT_CHEST"] * (1 + generation)
            + ["NO_REPORT"],
        }
    )
