"""One look: every stream tested by patient, Holm over the streams, the kind of drift, the report.

A look starts no training. An alarm asks for an evaluation on newly labelled patients: inputs may
move while performance stays (docs/drift.md).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lapvqa import storage
from lapvqa.drift import arrivals, features, reference, shares, spending, streams, window
from lapvqa.drift.arrivals import Arrival
from lapvqa.drift.permutation import Array, Test, permute
from lapvqa.drift.reference import Reference
from lapvqa.drift.streams import FEATURES, FINDINGS, REJECTED, TAGS, Stream, Tables
from lapvqa.drift.window import Window
from lapvqa.evaluation import features as feature_stores
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.evaluation.visual_tokens import shard_images
from lapvqa.gate.verdict import holm
from lapvqa.job import Job
from lapvqa.lineage import ledger
from lapvqa.params import DriftParams
from lapvqa.project import Project
from lapvqa.schemas import MEMBERS, MEMBERS_FILE

Kind = Literal["none", "acquisition", "prevalence", "mixed", "reports", "unexplained"]
"""acquisition: how films are taken, stored or sent; prevalence: what they show; mixed: both;
reports: the texts alone; unexplained: features moved, and no findings are known to say by what."""

_CHANGES_SHOWN, _NULL_DRAWS = 3, 500


@dataclass(frozen=True)
class Compared:
    """What a look says of one stream."""

    name: str
    kind: str
    p: float
    value: float
    """Squared MMD of features, PSI of shares."""
    alarm: bool
    patients: dict[str, int]
    """Of the reference and new ones; folders where the stream is files."""
    detectable: dict[str, float | None]
    """The least change that would be found 4 times of 5: of features the shift in deviations along
    the way in which films differ most, of shares by block the share that becomes another."""
    changes: tuple[str, ...] = ()
    """The largest changes of shares, in words."""
    told_apart: float | None = None
    """AUC of a classifier that tells new films from old, patients apart."""
    p_given_findings: float | None = None
    """p of the features among patients alike in their findings; asked after an alarm."""


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
        return {"what": "look", **asdict(self)}


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
    since the epoch. ``dates_are_true``: the tables have true dates, which tell the season.
    """
    now = time.time() if now is None else now
    project, tables = job.project, Tables(job.project)
    keys = tables.studies["study_key"].to_pylist()
    arrived = arrivals.note(project, keys, now)
    frozen = reference.read(project)
    if frozen is None:
        frozen = _freeze(project, arrived, now)
        job.recorder.say(f"froze {len(frozen.studies)} studies: what comes is compared with them")
    start = since if since is not None else max(frozen.at, now - params.window_days * 86400)
    chosen = window.choose(
        tables.studies, arrived, frozen, start=start, end=now,
        min_patients=params.min_patients, seasons=params.seasons, dates_are_true=dates_are_true,
    )  # fmt: skip
    found = streams.find_streams(
        tables, chosen, trained=_trained_on(model),
        min_patients=params.min_patients, most_patients=params.most_patients,
    )  # fmt: skip
    level = 0.0
    if found.compared:  # a look at nothing spends nothing
        level = spending.level(params.false_alarms_per_year, now - _last_spent(project, frozen))
    with threadpool_limits(job.machine.workers, user_api="blas"):
        compared = _compare(found.compared, tables, encoder, level, params.seed, job)
    report = _report(compared, chosen, frozen, now, level, encoder, dict(found.left_out))
    storage.write_json(project.drift_report, report.to_json())
    ledger.append(project, ledger.DRIFT, report.to_json())
    return report


def freeze(job: Job, *, now: float | None = None) -> Reference:
    """Make all studies that are there the reference, as after an alarm that was dealt with."""
    now = time.time() if now is None else now
    keys = Tables(job.project).studies["study_key"].to_pylist()
    return _freeze(job.project, arrivals.note(job.project, keys, now), now)


def _freeze(project: Project, arrived: Mapping[str, Arrival], now: float) -> Reference:
    return reference.freeze(project, (key for key, one in arrived.items() if one.at <= now), now)


def _trained_on(model: Path | None) -> frozenset[str]:
    path = None if model is None else model / MEMBERS_FILE
    if path is None or not path.exists():
        return frozenset()
    rows = storage.read_table(path, MEMBERS, made_by="pretrain").to_pylist()
    return frozenset(row["study_key"] for row in rows if row["role"] == "train" and row["times"])


def _last_spent(project: Project, frozen: Reference) -> float:
    """Return when error was last spent on this reference: at a look with a level, or never."""
    spent: list[float] = [
        entry.payload["at"]
        for entry in ledger.entries(project)
        if entry.kind == ledger.DRIFT
        and entry.payload
        and entry.payload["what"] == "look"
        and entry.payload["level"] > 0
    ]
    return max([frozen.at, *spent])


def _compare(
    compared: tuple[Stream, ...],
    tables: Tables,
    encoder: ImageEncoder,
    level: float,
    seed: int,
    job: Job,
) -> tuple[Compared, ...]:
    """Test every stream, find which alarm, and explain these."""
    draws = spending.draws(level, len(compared))
    strictest = (level or spending.MOST) / max(1, len(compared))
    tested: dict[str, tuple[Stream, Test, Any]] = {}
    for stream in compared:
        rng, rows = np.random.default_rng([seed, *stream.name.encode()]), stream.rows
        made: Any
        if stream.kind == FEATURES:
            made = _features_of(stream, tables, encoder, job)
            statistic = features.kernel(made, rows.patients, rows.weights).statistic
        else:
            made = shares.count(stream.answers, rows.patients, rows.weights)
            statistic = made.statistic
        tested[stream.name] = stream, permute(statistic, rows.in_window, rng, draws=draws), made
        job.recorder.progress(len(tested), len(compared), unit="streams", note=stream.name)
    p_values = {name: test.p for name, (_, test, _) in tested.items()}
    alarmed = holm(p_values, level) if level else set()
    propensity = _propensity_of_findings(tested)
    return tuple(
        _explain_features(stream, test, made, strictest, name in alarmed, propensity, seed)
        if stream.kind == FEATURES
        else _explain_shares(stream, test, made, strictest, name in alarmed, seed)
        for name, (stream, test, made) in tested.items()
    )


def _features_of(stream: Stream, tables: Tables, encoder: ImageEncoder, job: Job) -> Array:
    """Return the standardised features [n, D] of a stream's films, as the evaluations have them."""
    rows = tables.images.take(pa.array(stream.films, pa.int64()))
    digests, shards, places = (rows[name].to_pylist() for name in ("pixels_sha256", "shard", "row"))
    images = shard_images(digests, shards, places, job.project)
    store = feature_stores.open_store(encoder, "mean", job=job)
    store.fill(images.digests, images.read)
    return features.standardised(store.take(digests).astype(np.float64))


def _explain_features(
    stream: Stream,
    test: Test,
    values: Array,
    level: float,
    alarm: bool,
    propensity: Mapping[str, float],
    seed: int,
) -> Compared:
    rows = stream.rows
    shift = features.detectable_shift(values, rows.patients, rows.new, test.seen_from(level))
    given = None
    if alarm and propensity:
        known = np.array([propensity.get(key, -1.0) for key in rows.keys])
        rng = np.random.default_rng([seed, 1, *stream.name.encode()])
        kernel = features.kernel(values, rows.patients, rows.weights)
        given = permute(
            kernel.statistic, rows.in_window, rng, draws=max(1000, test.draws),
            strata=features.strata_of(known),
        ).p  # fmt: skip
    return Compared(
        stream.name, stream.kind, test.p, test.value, alarm, _patients(stream),
        {"shift": shift},
        told_apart=features.tell_apart(values, rows.patients, rows.new, rows.weights),
        p_given_findings=given,
    )  # fmt: skip


def _explain_shares(
    stream: Stream, test: Test, counts: shares.Counts, level: float, alarm: bool, seed: int
) -> Compared:
    detectable: dict[str, float | None] = {}
    for block in counts.blocks:
        rng = np.random.default_rng([seed, 2, *block.encode()])
        drawn = permute(counts.distance(block), stream.rows.in_window, rng, draws=_NULL_DRAWS)
        seen = drawn.seen_from(level)
        detectable[block] = round(seen, 4) if 0 < seen < 1 else None
    return Compared(
        stream.name, stream.kind, test.p, test.value, alarm, _patients(stream), detectable,
        changes=_largest_changes(counts, stream.rows.in_window),
    )  # fmt: skip


def _largest_changes(counts: shares.Counts, in_window: NDArray[np.bool_]) -> tuple[str, ...]:
    """Return the categories whose shares changed most, in words."""
    changes = [
        (abs(new - old), f"{block} {category}: {old:.1%} -> {new:.1%}")
        for block, categories in counts.shares(in_window).items()
        for category, (old, new) in categories.items()
    ]
    changes.sort(key=lambda change: (-change[0], change[1]))
    return tuple(said for difference, said in changes[:_CHANGES_SHOWN] if difference > 0)


def _patients(stream: Stream) -> dict[str, int]:
    return {"reference": stream.rows.count(new=False), "new": stream.rows.count(new=True)}


def _propensity_of_findings(tested: Mapping[str, tuple[Stream, Test, Any]]) -> dict[str, float]:
    """Return of each patient (key) how much the findings look like those of new patients."""
    for stream, _, counts in tested.values():
        if stream.kind != FINDINGS:
            continue
        rows = stream.rows
        by_patient = counts.by_patient / counts.by_patient.sum(axis=1, keepdims=True)
        numbers = np.arange(len(rows.keys))
        scores = features.propensity(by_patient, numbers, rows.in_window)
        return {} if scores is None else dict(zip(rows.keys, scores.tolist(), strict=True))
    return {}


def _kind(compared: tuple[Compared, ...], level: float) -> Kind:
    """Name the drift, as Roschewitz et al. (arXiv 2411.07940) divide it.

    Features that differ among patients of equal findings were taken otherwise; features that do
    not, while the findings moved, show other patients.
    """
    alarmed = [one for one in compared if one.alarm]
    if not alarmed:
        return "none"
    moved = [one for one in alarmed if one.kind == FEATURES]
    findings_moved = any(one.kind == FINDINGS and one.p <= level for one in compared)
    acquisition = any(one.kind in (TAGS, REJECTED) for one in alarmed) or any(
        one.p_given_findings is not None and one.p_given_findings <= level for one in moved
    )
    explained = bool(moved) and all(one.p_given_findings is not None for one in moved)
    prevalence = findings_moved and (
        any(one.kind == FINDINGS for one in alarmed) or (explained and not acquisition)
    )
    if acquisition and prevalence:
        return "mixed"
    if acquisition:
        return "acquisition"
    if prevalence:
        return "prevalence"
    return "unexplained" if moved else "reports"


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
        kind=_kind(compared, level),
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
