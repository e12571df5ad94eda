"""What an erasure touches beside bytes: models, metrics, and what retraining would cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lapvqa import storage
from lapvqa.datasets.splits import TRAIN, VALIDATE
from lapvqa.evaluation.results import PREDICTIONS
from lapvqa.evaluation.sealed import SEALED
from lapvqa.evaluation.task_table import EVALUATIONS, find
from lapvqa.identity import key_id
from lapvqa.ingest.columns import counted, is_one_of
from lapvqa.lineage import ledger, members, recording
from lapvqa.lineage.row_numbers import PATIENT, STUDY, RowNumbers, unpacked
from lapvqa.lineage.runs import Run, of_entry
from lapvqa.project import Project
from lapvqa.schemas import EXCLUDED, IMAGES, MEMBERS, MEMBERS_FILE, STUDIES


def rows_of(project: Project, patient: str) -> dict[str, int]:
    """Return how many rows of each table are the patient's; 0 where a table is not there."""
    tables = {"images": project.images, "studies": project.studies, "tokens": project.tokens_dir}
    counts = {}
    for name, path in tables.items():
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        own = (storage.read_columns(file, ["patient_key"])["patient_key"]
               for file in files if file.exists())  # fmt: skip
        counts[name] = sum(int(is_one_of(column, [patient]).sum()) for column in own)
    return counts


def split_of(project: Project, patient: str) -> str | None:
    """Return the patient's split; None if there are no studies of them."""
    if not project.studies.exists():
        return None
    studies = storage.read_table(project.studies, STUDIES, made_by="ingest")
    rows = pa.array(is_one_of(studies["patient_key"], [patient]))
    own = studies["split"].filter(rows).to_pylist()
    return own[0] if own else None


def shard_rows(project: Project) -> dict[str, dict[str, int]]:
    """Return the rows of each shard of images and of tokens."""
    found: dict[str, dict[str, int]] = {"images": {}, "tokens": {}}
    if project.images.exists():
        images = storage.read_table(project.images, IMAGES, made_by="ingest")
        found["images"] = counted(images["shard"])
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


def affected_models(
    project: Project, patient: str, also_in: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return the trainings that sampled the patient, or chose by them, as the ledger knows them.

    ``also_in``: studies of others that hold a film of the patient's. With the weights that came of
    each training (sha256), and the evaluations that judged them.
    """
    patients = RowNumbers(project, PATIENT).find_all([patient])
    studies = RowNumbers(project, STUDY).find_all(also_in)
    if not patients and not studies:
        return []
    entries = ledger.entries(project)
    runs = {entry.id: run for entry in entries if (run := of_entry(entry))}
    found = []
    for entry in entries:
        if entry.kind != ledger.TRAINED_ON or entry.payload is None:
            continue
        roles = entry.payload["roles"]
        own = [
            role
            for role, sampled in roles.items()
            if unpacked(sampled["patients"]) & patients
            or any(unpacked(rows) & studies for rows in sampled["studies"].values())
        ]
        if own:
            after = _downstream(entry.payload["run"], runs)
            found.append(
                {
                    "run": entry.payload["run"], "roles": own,
                    "weights": _weights(after), "evaluations": _evaluations(after),
                }
            )  # fmt: skip
    return found


def _downstream(run_id: str, runs: Mapping[str, Run]) -> list[Run]:
    """Return a run and all that stand on it, in order."""
    reached = {run_id}
    for other, run in runs.items():  # oldest first: a consumer comes after its source
        if reached & set(run.sources.values()):
            reached.add(other)
    return [run for other, run in runs.items() if other in reached]


def _weights(after: Iterable[Run]) -> dict[str, str]:
    return {
        path: facts["sha256"]
        for run in after
        for path, facts in run.files.items()
        if Path(path).suffix in (".pt", ".safetensors") and "sha256" in facts
    }


def _evaluations(after: Iterable[Run]) -> list[str]:
    """Return those that have a result: without its data a task is not computed."""
    return sorted({run.stage for run in after if run.stage.startswith("evaluate@") and run.metrics})


def affected_metrics(project: Project, patient: str, split: str | None) -> list[dict[str, Any]]:
    """Return the evaluations in results/ whose test samples hold the patient.

    Of a patient who is not tested those whose heads learn from the archive's films: no list says
    from which. ``split``: the patient's.
    """
    found = []
    for task in EVALUATIONS:
        rows = samples = 0
        for name in (PREDICTIONS, SEALED):  # a patient is in one of the two
            path = project.result_dir(task) / name
            if not path.exists():
                continue
            table = storage.read_columns(path, ["patient", "sample"])
            own = table.filter(pa.array(is_one_of(table["patient"], [patient])))
            rows += len(table)
            samples += len(set(own["sample"].to_pylist()))
        is_computed = rows > 0
        learns = is_computed and split in (TRAIN, VALIDATE) and find(task).tests_archive
        if samples or learns:
            found.append(
                {"task": task, "samples_of_patient": samples, "head_may_have_learnt": learns}
            )
    return found


def trainings_since(project: Project, receipt: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the trainings after a receipt, and whether the patient is among those of each.

    None where it cannot be told: somebody else was erased since, or it is of an archive that hides
    identifiers by another key, by which the patient would be called otherwise.
    """
    written = datetime.fromisoformat(receipt["written"]).timestamp()
    told = receipt["training_set"]
    absent = bytes.fromhex(told["absent"])
    named = told.get("key") or key_id(members.project_key(project) or b"")  # older receipts
    return [
        {
            "run": one.run, "patients": one.patients, "root": one.root,
            "has_the_patient": _among(one, absent, named),
        }
        for one in members.trainings(project)
        if one.time >= written
    ]  # fmt: skip


def _among(training: members.Recorded, absent: bytes, key: str) -> bool | None:
    is_told = training.is_as_recorded and training.key == key
    return absent in training.leaves if is_told else None


def held_out_for(project: Project, patient: str) -> dict[str, int]:
    """Return how many images of others training lost because of the patient's, by reason.

    They come back into training when the patient goes, but for copies of the patient's own films.
    """
    if not (project.excluded.exists() and project.images.exists()):
        return {}
    excluded = storage.read_table(project.excluded, EXCLUDED, made_by="firewall")
    images = storage.read_table(project.images, IMAGES, made_by="ingest")
    own = images["image_key"].filter(pa.array(is_one_of(images["patient_key"], [patient])))
    because = is_one_of(excluded["test_image"], own.to_pylist())
    others = because & ~is_one_of(excluded["patient_key"], [patient])
    return counted(excluded["reason"].filter(pa.array(others)))


def ways_to_retrain(
    project: Project, patient: str, also_in: Collection[str], objective: str
) -> list[dict[str, float | int | str | None]]:
    """Return what each way of retraining costs, in steps and in the present model's seconds.

    Empty if the present model was neither trained with the patient nor chosen by them. Each epoch
    ends with a validation, so from the first one on who is validated takes part in the choice of
    the best step.
    """
    folder = project.model_dir(objective)
    if not (folder / MEMBERS_FILE).exists() or not (folder / "training.json").exists():
        return []
    table = storage.read_table(folder / MEMBERS_FILE, MEMBERS, made_by="pretrain")
    sampled = is_one_of(table["patient_key"], [patient])
    sampled |= is_one_of(table["study_key"], also_in)
    own = table.filter(pa.array(sampled))
    training = storage.read_json(folder / "training.json", made_by="pretrain")
    total, params = training["steps"], training["params"]
    epochs = (params.get("continue_from") and params.get("continue_epochs")) or params["epochs"]
    sampled_at = [step for step in own["first_step"].to_pylist() if step]
    chose_at = [total // epochs] if VALIDATE in own["role"].to_pylist() else []
    if not sampled_at and not chose_at:
        return []
    first = min(sampled_at + chose_at)
    run = recording.present(project).get("pretrain")
    seconds = run and run.seconds
    share = (first - 1) / total
    states = (
        int(path.stem.removeprefix("state-"))
        for path in project.work_dir("pretrain").glob("*/state-*.json")
    )
    usable = max((step for step in states if step < first), default=None)
    kept = f"the state of step {usable} is kept" if usable else "no state before it is kept"
    if first in sampled_at:
        times = sum(own["times"].to_pylist())
        since = f"first sampled at step {first} of {total}, {times} times in all"
        expected = f" (to be expected of {epochs} epochs: 1/(2E) = {1 / (2 * epochs):.1%})"
        exactness = "not exact, the order of samples depends on their number"
    else:
        since = f"chose the best step from the first validation on, at step {first} of {total}"
        expected, exactness = "", "whether it is exact is not measured"
    return [
        {
            "way": "ancestor generation", "steps": None, "seconds": None,
            "remark": "not offered: an erasure is answered by a training from scratch"
            if params.get("continue_from")
            else "not possible: no model here was started from another",
        },
        {
            "way": "checkpoint", "steps": total - first + 1,
            "seconds": None if seconds is None else round(seconds * (1 - share), 1),
            "remark": f"{since}: saves {share:.1%}{expected}; {kept}; {exactness}",
        },
        {
            "way": "scratch", "steps": total, "seconds": seconds and round(seconds, 1),
            "remark": "exact: the weights of a run that never had the patient",
        },
    ]  # fmt: skip


def archive_files(project: Project, folder: Path, paths: set[str]) -> list[str]:
    """Return which of the patient's files the archive still holds, relative to its folder."""
    return sorted(path for path in paths if (folder / path.partition("#")[0]).exists())
