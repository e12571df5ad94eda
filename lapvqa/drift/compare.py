"""Streams compared: each tested by patient, Holm over all, alarms explained, the drift named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lapvqa.drift import features, shares, spending
from lapvqa.drift.permutation import Array, Test, permute
from lapvqa.drift.streams import FINDINGS, OF_FILMS, REJECTED, TAGS, Stream
from lapvqa.gate.verdict import holm

Kind = Literal["none", "acquisition", "prevalence", "mixed", "reports", "unexplained"]
"""acquisition: how films are taken, stored or sent; prevalence: what they show; mixed: both;
reports: the texts alone; unexplained: films moved, and no findings are known to say by what."""

_CHANGES_SHOWN, _NULL_DRAWS = 3, 500


@dataclass(frozen=True)
class Compared:
    """What a look says of one stream."""

    name: str
    kind: str
    p: float
    value: float
    """Squared MMD of films, PSI of shares."""
    alarm: bool
    patients: dict[str, int]
    """Of the reference and new ones; folders where the stream is files."""
    detectable: dict[str, float | None]
    """The least change that would be found 4 times of 5: of films the shift in deviations along
    the way in which films differ most, of shares by block the share that becomes another."""
    changes: tuple[str, ...] = ()
    """The largest changes of shares, in words."""
    told_apart: float | None = None
    """AUC of a classifier that tells new films from old, patients apart."""
    p_given_findings: float | None = None
    """p of the films among patients alike in their findings; asked after an alarm."""


def compare(
    streams: Sequence[Stream],
    numbers_of: Callable[[Stream], Array],
    level: float,
    *,
    seed: int = 0,
    progress: Callable[[int, str], None] = lambda done, name: None,
) -> tuple[Compared, ...]:
    """Test every stream and find which alarm at ``level``, 0 for none; explain all.

    ``numbers_of``: standardised features or greys [n, D] of a stream's films.
    """
    draws = spending.draws(level, len(streams))
    strictest = (level or spending.MOST) / max(1, len(streams))
    tested: dict[str, tuple[Stream, Test, Any]] = {}
    for stream in streams:
        rng, rows = np.random.default_rng([seed, *stream.name.encode()]), stream.rows
        made: Any
        if stream.kind in OF_FILMS:
            made = numbers_of(stream)
            statistic = features.kernel(made, rows.patients, rows.weights).statistic
        else:
            made = shares.count(stream.answers, rows.patients, rows.weights)
            statistic = made.statistic
        tested[stream.name] = stream, permute(statistic, rows.in_window, rng, draws=draws), made
        progress(len(tested), stream.name)
    p_values = {name: test.p for name, (_, test, _) in tested.items()}
    alarmed = holm(p_values, level) if level else set()
    propensity = _propensity_of_findings(tested)
    return tuple(
        _explain_features(stream, test, made, strictest, name in alarmed, propensity, seed)
        if stream.kind in OF_FILMS
        else _explain_shares(stream, test, made, strictest, name in alarmed, seed)
        for name, (stream, test, made) in tested.items()
    )


def name_kind(compared: Sequence[Compared], level: float) -> Kind:
    """Name the drift, as Roschewitz et al. (arXiv 2411.07940) divide it.

    Films that differ among patients of equal findings were taken otherwise; films that do not,
    while the findings moved, show other patients.
    """
    alarmed = [one for one in compared if one.alarm]
    if not alarmed:
        return "none"
    moved = [one for one in alarmed if one.kind in OF_FILMS]
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
