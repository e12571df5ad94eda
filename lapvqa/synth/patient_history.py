"""A patient's studies in time: the findings of each, which persist, change and resolve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lapvqa.synth.findings import (
    ATELECTASIS,
    CARDIOMEGALY,
    CONSOLIDATION,
    DEVICE,
    DEVICES,
    EDEMA,
    EFFUSION,
    NODULE,
    PNEUMOTHORAX,
    SIDES,
    ZONES,
    Finding,
)

Findings = tuple[Finding, ...]

_HEALTHY = 0.37
"""Share of fresh draws without a finding."""

# Chance of each kind in a fresh draw that is not healthy.
_CHANCE = {
    EFFUSION: 0.33,
    CARDIOMEGALY: 0.29,
    EDEMA: 0.38,
    CONSOLIDATION: 0.33,
    ATELECTASIS: 0.36,
    PNEUMOTHORAX: 0.13,
    NODULE: 0.13,
}
_ZONE_CHANCE = (0.18, 0.20, 0.62)
"""Of the upper, mid and lower zone: most pneumonias lie low."""
_DEVICE = 0.18
_BILATERAL = 0.22
_UNCERTAIN = 0.015
_STAYS = {CARDIOMEGALY: 0.8, NODULE: 0.9, DEVICE: 0.7}
_STAYS_OTHERWISE = 0.55
_MOST = 3
"""Kinds of disease in one study at most: reports stay short."""


def stream(*key: int) -> np.random.Generator:
    """Return the random stream of a key such as (seed, dataset, patient, study)."""
    return np.random.default_rng(key)


def _fresh(rng: np.random.Generator, kind: str, side: str = "") -> Finding:
    """Draw one finding; the place is drawn blindly, ``_settle`` resolves clashes."""
    sided = kind in (EFFUSION, PNEUMOTHORAX, CONSOLIDATION, NODULE, ATELECTASIS)
    zoned = kind in (CONSOLIDATION, NODULE)
    return Finding(
        kind=kind,
        grade=float(rng.uniform(0.02, 0.98)),
        seed=int(rng.integers(2**31)),
        side=(side or str(rng.choice(SIDES))) if sided else "",
        zone=str(rng.choice(ZONES, p=_ZONE_CHANCE)) if zoned else "",
        device=str(rng.choice(DEVICES)) if kind == DEVICE else "",
        uncertain=bool(rng.random() < _UNCERTAIN) and kind != DEVICE,
    )


def _settle(findings: Sequence[Finding]) -> Findings:
    """Move or drop findings that would hide one another.

    Air, fluid, plates and clouds of one side cannot all be told apart in a projection; a pleural
    effusion keeps its place, the others give way to it.
    """
    taken: dict[str, set[str]] = {side: set() for side in SIDES}
    settled: list[Finding] = []
    order = (EFFUSION, PNEUMOTHORAX, ATELECTASIS, CONSOLIDATION, NODULE)
    for finding in sorted(findings, key=lambda f: order.index(f.kind) if f.kind in order else -1):
        if finding.kind not in order:
            settled.append(finding)
            continue
        other = SIDES[1 - SIDES.index(finding.side)]
        for side in (finding.side, other) if finding.kind != EFFUSION else (finding.side,):
            placed = _place(replace(finding, side=side), taken[side])
            if placed is not None:
                taken[side].add(f"{placed.kind} {placed.zone}".strip())
                settled.append(placed)
                break
    return tuple(settled)


def _place(finding: Finding, taken: set[str]) -> Finding | None:
    """Return the finding, in another zone if need be, or None if its side has no room."""
    kind = finding.kind
    if kind == EFFUSION:
        return None if EFFUSION in taken else finding
    if kind == PNEUMOTHORAX:
        return None if taken else finding
    if PNEUMOTHORAX in taken:
        return None
    if kind == ATELECTASIS:
        return None if EFFUSION in taken or ATELECTASIS in taken else finding
    blocked = {name.rsplit(" ", 1)[1] for name in taken if name.rsplit(" ", 1)[-1] in ZONES}
    if {EFFUSION, ATELECTASIS} & taken:
        blocked.add("lower")
    if finding.zone in blocked:
        free = [zone for zone in ("mid", "upper", "lower") if zone not in blocked]
        return replace(finding, zone=free[0]) if free else None
    return finding


def sample_findings(rng: np.random.Generator) -> Findings:
    """Draw the findings of a patient never seen before."""
    findings: list[Finding] = []
    if rng.random() >= _HEALTHY:
        while not findings:
            kinds = [kind for kind, chance in _CHANCE.items() if rng.random() < chance]
            findings = [_fresh(rng, kinds[i]) for i in rng.permutation(len(kinds))[:_MOST]]
    for finding in list(findings):
        if finding.kind == EFFUSION and rng.random() < _BILATERAL:
            findings.append(_fresh(rng, EFFUSION, SIDES[1 - SIDES.index(finding.side)]))
    if rng.random() < _DEVICE:
        findings.append(_fresh(rng, DEVICE))
    return _settle(findings)


def evolve(rng: np.random.Generator, before: Findings) -> Findings:
    """Draw the next study's findings: some persist, better or worse, some resolve, some are new."""
    kept = []
    for finding in before:
        if rng.random() < _STAYS.get(finding.kind, _STAYS_OTHERWISE):
            grade = float(np.clip(finding.grade + rng.normal(0.0, 0.28), 0.02, 0.98))
            fixed = finding.kind in (NODULE, DEVICE)
            sure = replace(finding, uncertain=bool(rng.random() < _UNCERTAIN) and not fixed)
            kept.append(sure if fixed else replace(sure, grade=grade))
    kinds = {finding.kind for finding in kept}
    room = _MOST - len(kinds - {DEVICE})
    for finding in sample_findings(rng):
        if finding.kind not in kinds and room > 0 and rng.random() < 0.5:
            kept.append(finding)
            kinds.add(finding.kind)
            room -= finding.kind != DEVICE
    return _settle(kept)


def sample_history(rng: np.random.Generator, count: int) -> list[Findings]:
    """Draw the findings of a patient's studies, in order of time."""
    studies = [sample_findings(rng)]
    while len(studies) < count:
        studies.append(evolve(rng, studies[-1]))
    return studies


def share_out(rng: np.random.Generator, total: int, patients: int, most: int) -> list[int]:
    """Return how many of ``total`` studies each patient has: 1 to ``most``, exactly ``total``."""
    counts = np.ones(patients, np.int64)
    for _ in range(total - patients):
        # Squared: few patients have many studies, as in a hospital.
        weight = np.where(counts < most, counts.astype(float), 0.0)
        counts[rng.choice(patients, p=weight / weight.sum())] += 1
    return [int(count) for count in counts]
