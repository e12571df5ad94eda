"""What a patient's erasure touches beside bytes: models, metrics, and what retraining would cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lapvqa import storage
from lapvqa.evaluation.task_table import EVALUATIONS
from lapvqa.ingest.columns import is_one_of
from lapvqa.params import PretrainParams
from lapvqa.project import Project
from lapvqa.schemas import IMAGES, STUDIES, TOKENS

_TRAINED_ON = ("train", "validate")
_WEIGHTS = ("encoder.safetensors", "encoder_final.pt", "model_best.pt", "model_last.pt")


def rows_of(project: Project, patient: str) -> dict[str, int]:
    """Return how many rows of each table are the patient's; 0 where a table is not there."""
    tables = {"images": project.images, "studies": project.studies, "tokens": project.tokens_dir}
    counts = {}
    for name, path in tables.items():
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        own = (pq.read_table(file, columns=["patient_key"], partitioning=None)["patient_key"]
               for file in files if file.exists())  # fmt: skip
        counts[name] = sum(int(is_one_of(column, [patient]).sum()) for column in own)
    return counts


def split_of(project: Project, patient: str) -> str | None:
    """Return the patient's split; None if there are no studies of them."""
    if not project.studies.exists():
        return None
    studies = storage.read_table(project.studies, STUDIES, made_by="ingest")
    own = studies.filter(is_one_of(studies["patient_key"], [patient]))["split"].to_pylist()
    return own[0] if own else None


def shard_rows(project: Project) -> dict[str, dict[str, int]]:
    """Return the rows of each shard of images and of tokens."""
    found: dict[str, dict[str, int]] = {"images": {}, "tokens": {}}
    if project.images.exists():
        images = storage.read_table(project.images, IMAGES, made_by="ingest")
        names, counts = np.unique(images["shard"].to_numpy(zero_copy_only=False), return_counts=True)
        found["images"] = {str(name): int(n) for name, n in zip(names, counts, strict=True)}
    if project.tokens_dir.exists():
        found["tokens"] = {
            path.name: pq.read_metadata(path).num_rows
            for path in sorted(project.tokens_dir.glob("*.parquet"))
        }
    return found


def over_deletion(
    before: Mapping[str, Mapping[str, int]],
    after: Mapping[str, Mapping[str, int]],
    own: Mapping[str, int],
) -> dict[str, dict[str, float | int | None]]:
    """Return rows written anew, and per row of the patient, of each kind of shard.

    A shard that is gone held its own rows and the patient's; the others were written anew.
    """
    result: dict[str, dict[str, float | int | None]] = {}
    for kind, shards in before.items():
        gone = [name for name in shards if name not in after.get(kind, {})]
        rows = sum(shards[name] for name in gone)
        patient = own.get(kind, 0)
        result[kind] = {
            "shards": len(shards), "shards_rewritten": len(gone), "rows_of_patient": patient,
            "rows_rewritten": rows - patient,
            "rows_rewritten_per_row_of_patient":
                round((rows - patient) / patient, 2) if patient else None,
        }  # fmt: skip
    return result


def affected_models(project: Project, patient: str) -> list[dict[str, Any]]:
    """Return the models in models/ whose training data hold the patient, and in which role."""
    split = split_of(project, patient)
    if split not in _TRAINED_ON:
        return []
    return [
        {
            "model": folder.relative_to(project.root).as_posix(),
            "role": "trained on" if split == "train" else "chosen by (validation)",
            "sha256": {
                name: storage.sha256_file(folder / name)
                for name in _WEIGHTS
                if (folder / name).exists()
            },
        }
        for folder in sorted((project.root / "models").glob("*"))
        if any((folder / name).exists() for name in _WEIGHTS)
    ]


def affected_metrics(project: Project, patient: str, *, models: bool) -> list[dict[str, Any]]:
    """Return the evaluations whose numbers hold the patient, or an affected model's answers."""
    found = []
    for task in EVALUATIONS:
        path = project.result_dir(task) / "predictions.parquet"
        if not path.exists():
            continue
        table = pq.read_table(path, columns=["patient", "sample"])
        own = table.filter(is_one_of(table["patient"], [patient]))
        samples = len(set(own["sample"].to_pylist()))
        if samples or models:
            found.append({"task": task, "samples_of_patient": samples, "by_affected_model": models})
    return found


def ways_to_retrain(
    project: Project, patient: str, params: PretrainParams
) -> list[dict[str, float | int | str | None]]:
    """Return what each way of retraining costs, of steps and of the last training's seconds.

    Which step first sampled the patient is computed, not logged: the order of samples is a
    function of the seed and the number of pairs. Empty if the patient trained nothing.
    """
    steps = _sampled(project, patient, params)
    if steps is None:
        return []
    first, total, times = steps
    seconds = _last_seconds(project)

    def cost(share: float) -> float | None:
        return None if seconds is None else round(seconds * share, 1)

    saved = (first - 1) / total
    kept = [
        int(path.stem.removeprefix("state-"))
        for path in project.work_dir("pretrain").glob("*/state-*.json")
    ]
    usable = max((step for step in kept if step < first), default=None)
    return [
        {
            "way": "ancestor generation", "steps": None, "seconds": None,
            "remark": "none: no model here was started from another",
        },
        {
            "way": "checkpoint", "steps": total - (first - 1), "seconds": cost(1 - saved),
            "remark": f"first sampled at step {first} of {total}, {times} times in all: saves "
            f"{saved:.1%} at best (expected 1/(2E) = {1 / (2 * params.epochs):.1%} of E = "
            f"{params.epochs} epochs); "
            + (f"the state of step {usable} is kept" if usable else "no state before it is kept")
            + "; not exact: the order of samples depends on their number",
        },
        {
            "way": "scratch", "steps": total, "seconds": cost(1.0),
            "remark": "exact: the weights of a run that never had the patient",
        },
    ]  # fmt: skip


def _sampled(project: Project, patient: str, params: PretrainParams) -> tuple[int, int, int] | None:
    """Return the first step (from 1) that sampled the patient, all steps, how often in all."""
    if not (project.images.exists() and project.tokens_dir.exists()):
        return None
    from lapvqa.images.report_pairs import epoch_order, read_pairs  # torch: seconds

    pairs, _ = read_pairs(project, "train")
    tokens = storage.read_table(project.tokens_dir, TOKENS, made_by="tokens")
    own = tokens.filter(is_one_of(tokens["patient_key"], [patient]))["study_key"].to_pylist()
    places = [place for place, pair in enumerate(pairs) if pair.study_key in set(own)]
    if not places:
        return None
    order = epoch_order(len(pairs), seed=params.seed, epoch=0).tolist()
    first = min(order.index(place) for place in places) // params.batch_size + 1
    per_epoch = -(-len(pairs) // params.batch_size)
    return first, per_epoch * params.epochs, params.epochs * len(places)


def _last_seconds(project: Project) -> float | None:
    path = project.run_file("pretrain")
    return float(json.loads(path.read_bytes())["seconds"]) if path.exists() else None


def archive_files(project: Project, folder: Path, paths: set[str]) -> list[str]:
    """Return which of the patient's files the archive still holds, relative to its folder."""
    return sorted(path for path in paths if (folder / path.partition("#")[0]).exists())
