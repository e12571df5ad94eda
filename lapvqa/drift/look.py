"""One look: what arrived against the reference, what it may spend, the report, the ledger.

A look starts no training. An alarm asks for an evaluation on newly labelled patients, as a cause on
the record of what is wanted: inputs may move while performance stays (docs/drift.md).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lapvqa import storage
from lapvqa.drift import arrivals, features, greys, looks, reference, spending, streams, window
from lapvqa.drift.arrivals import Arrival
from lapvqa.drift.compare import Compared, Kind, compare, name_kind
from lapvqa.drift.permutation import Array
from lapvqa.drift.reference import Reference
from lapvqa.drift.streams import GREYS, Stream, Tables
from lapvqa.drift.window import Window
from lapvqa.evaluation import features as feature_stores
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.evaluation.visual_tokens import shard_images
from lapvqa.job import Job
from lapvqa.lineage import ledger
from lapvqa.params import DriftParams
from lapvqa.project import Project
from lapvqa.recorder import counted
from lapvqa.retraining import wanted
from lapvqa.schemas import MEMBERS, MEMBERS_FILE

_AT_ONCE = 256
"""Films read at a time."""


@dataclass(frozen=True)
class Report:
    """What a look found; ``alarm`` asks for an evaluation, never for a training."""

    alarm: bool
    kind: Kind
    at: float
    """Seconds since the epoch."""
    level: float
    """What the look could spend; 0: too soon after the last one."""
    reference: dict[str, Any]
    window: dict[str, Any]
    encoder: str
    """Digest of its weights."""
    compared: tuple[Compared, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as the ledger and reports/drift.json have them."""
        return {"what": looks.LOOK, **asdict(self)}


def look(
    params: DriftParams,
    job: Job,
    encoder: ImageEncoder,
    *,
    model: Path | None = None,
    now: float | None = None,
    since: float | None = None,
    dates_are_true: bool = False,
) -> Report:
    """Compare what arrived with the frozen reference; the ledger and reports/drift.json say how.

    Without a reference all studies become it, and nothing is compared yet. ``model``: the folder of
    the encoder, whose members.parquet says whom it was trained on. ``since``, ``now``: seconds
    since the epoch; studies of the reference that came after ``since`` count as new.
    ``dates_are_true``: the tables have true dates, which tell the season.
    """
    now = time.time() if now is None else now
    project, tables = job.project, Tables(job.project)
    keys = tables.studies["study_key"].to_pylist()
    arrived = arrivals.note(project, keys, now)
    frozen = reference.read(project)
    if frozen is None:
        frozen = _freeze(project, arrived, now)
        job.recorder.say(_frozen_now(frozen, tables))
    start = now - params.window_days * 86400 if since is None else since
    chosen = window.choose(
        tables.studies, arrived, frozen, start=start, end=now, divide=since is not None,
        min_patients=params.min_patients, seasons=params.seasons, dates_are_true=dates_are_true,
    )  # fmt: skip
    found = streams.find_streams(
        tables, chosen, trained=_trained_on(model),
        min_patients=params.min_patients, most_patients=params.most_patients,
    )  # fmt: skip
    level = 0.0
    if found.compared:  # a look at nothing spends nothing
        entries = ledger.entries(project)
        level = spending.level(
            params.false_alarms_per_year, now - looks.last_spent(entries, frozen.at)
        )
    with threadpool_limits(job.computing.cpu_threads, user_api="blas"):
        compared = compare(
            found.compared,
            lambda stream: _numbers_of(stream, tables, encoder, job),
            level,
            seed=params.seed,
            progress=lambda done, name: job.recorder.progress(
                done, len(found.compared), unit="streams", note=name
            ),
        )
    report = _report(compared, chosen, frozen, now, level, encoder, dict(found.left_out))
    storage.write_json(project.drift_report, report.to_json())
    ledger.append(project, ledger.DRIFT, report.to_json())
    if report.alarm:
        wanted.want(project, wanted.DRIFT, kind=str(report.kind))
    return report


def freeze(job: Job, *, now: float | None = None) -> Reference:
    """Make all studies that are there the reference, as after an alarm that was dealt with."""
    now = time.time() if now is None else now
    keys = Tables(job.project).studies["study_key"].to_pylist()
    return _freeze(job.project, arrivals.note(job.project, keys, now), now)


def _freeze(project: Project, arrived: Mapping[str, Arrival], now: float) -> Reference:
    return reference.freeze(project, (key for key, one in arrived.items() if one.at <= now), now)


def _frozen_now(frozen: Reference, tables: Tables) -> str:
    rows = (row for row in tables.studies.to_pylist() if row["study_key"] in frozen.studies)
    patients = len({row["patient_key"] for row in rows})
    images = sum(key in frozen.studies for key in tables.images["study_key"].to_pylist())
    return (
        f"reference frozen now: {counted(images, 'image')} of {counted(patients, 'patient')} in "
        f"{counted(len(frozen.studies), 'study')}, because there was none; the ledger has an entry "
        "of it, and what comes from now on is compared with it, until `lapvqa drift --freeze` "
        "takes all that is here then"
    )


def _trained_on(model: Path | None) -> frozenset[str]:
    path = None if model is None else model / MEMBERS_FILE
    if path is None or not path.exists():
        return frozenset()
    rows = storage.read_table(path, MEMBERS, made_by="pretrain").to_pylist()
    return frozenset(row["study_key"] for row in rows if row["role"] == "train" and row["times"])


def _numbers_of(stream: Stream, tables: Tables, encoder: ImageEncoder, job: Job) -> Array:
    """Return standardised numbers [n, D] of a stream's films: greys, or the features that the
    evaluations have of them, too."""
    rows = tables.images.take(pa.array(stream.films, pa.int64()))
    columns = (rows[name].to_pylist() for name in ("pixels_sha256", "shard", "row"))
    images = shard_images(list(zip(*columns, strict=True)), job.project)
    if stream.kind == GREYS:
        every = range(len(images.digests))
        parts = [
            greys.describe(images.read(every[start : start + _AT_ONCE]))
            for start in every[::_AT_ONCE]
        ]
        return features.standardised(np.concatenate(parts))
    store = feature_stores.open_store(encoder, "mean", job=job)
    store.fill(images.digests, images.read)
    return features.standardised(store.take(images.digests).astype(np.float64))


def _report(
    compared: tuple[Compared, ...],
    chosen: Window,
    frozen: Reference,
    now: float,
    level: float,
    encoder: ImageEncoder,
    left_out: dict[str, str],
) -> Report:
    remarks = list(chosen.remarks)
    if compared and not level:
        remarks.append("too soon after the last look: described, no alarm can be raised")
    if not compared:
        remarks.append("nothing could be compared yet, and no error was spent")
    if frozen.lost:
        remarks.append(f"an erasure took {frozen.lost} studies from the reference")
    return Report(
        alarm=any(one.alarm for one in compared),
        kind=name_kind(compared, level),
        at=now,
        level=level,
        reference={
            "digest": frozen.digest, "at": frozen.at, "studies": chosen.count(new=False),
            "months": list(chosen.months), "returned_patients": chosen.returning,
        },
        window={"from": _moment(chosen.start), "to": _moment(chosen.end),
                "studies": chosen.count(new=True)},
        encoder=feature_stores.encoder_digest(encoder),
        compared=compared,
        left_out=left_out,
        remarks=tuple(remarks),
    )  # fmt: skip


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
