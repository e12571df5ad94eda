"""The rule applied to the evidence: PROMOTE, REJECT, or INCONCLUSIVE with what is missing.

PROMOTE needs all of these, each by patient and one-sided: better than the champion in a primary
endpoint (Holm, Scand. J. Stat. 6 (1979), over the primary ones) and in none of them behind the
first anchor, at the level that the budget grants; at the level of guards, not worse than the
champion, and than the anchor, by more than the margin in every other endpoint; nor than the
champion in any slice. All of the latter must hold, so none of them needs a correction
(intersection-union: Berger, Technometrics 24 (1982)). For the same reason a guard may be of
patients whose results were seen: a condition more can only keep a candidate out.

A champion whose training saw a patient who is erased now has to go, so its successor need not be
better: in the primary endpoints not worse than the first anchor by more than a margin, at the level
of guards; all other guards stay. The anchor does not move, so that erasures do not add up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import NormalDist

_NORMAL = NormalDist()
_POWER = 0.8

CONTAMINATED = (
    "the champion's training saw a patient who is erased now: its successor need not be better"
)
SPENT = (
    "the error budget of this test set is spent: new patients are needed, `lapvqa gate --seal "
    "--new-round` draws anew among those who arrive from then on"
)


class Outcome(StrEnum):
    """What becomes of a candidate."""

    PROMOTE = "promote"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Paired:
    """Candidate minus another model in one endpoint on the same patients; higher is better."""

    value: float
    error: float
    """Standard error, by patient."""
    patients: int

    def p_better(self, margin: float = 0.0) -> float:
        """Return the one-sided p of "no more than ``margin`` worse"; small: it is better than that.

        Two models of equal predictions do not vary: not worse than any margin, better than none.
        """
        return self._p(self.value + margin)

    def is_worse(self, margin: float, level: float) -> bool:
        """Tell whether it is shown to be worse by more than ``margin``."""
        return self._p(-self.value - margin) < level

    def _p(self, gain: float) -> float:
        """Return the p of "no gain"; at the least what patients who all agree can show.

        That is an exact sign test's; the error of few who agree is next to nothing.
        """
        certain = 0.0 if gain > 0 else 1.0
        p = _NORMAL.cdf(-gain / self.error) if self.error else certain
        return float(max(p, 0.5**self.patients))

    def needed(self, level: float, *, effect: float, margin: float = 0.0) -> int | None:
        """Return how many patients would show a true difference of ``effect``, 4 times of 5.

        None where no number would: the effect lies outside the margin.
        """
        reach = effect + margin
        if reach <= 0 or level <= 0:
            return None
        z = _NORMAL.inv_cdf(1 - level) + _NORMAL.inv_cdf(_POWER)
        return math.ceil(self.patients * (z * self.error / reach) ** 2)


@dataclass(frozen=True)
class Rule:
    """What was written down before: names of endpoints, margins (positive), sizes."""

    primary: tuple[str, ...]
    margins: Mapping[str, float]
    """Endpoint -> how much worse it may be than the champion, and than the anchor."""
    slice_margin: float
    """The same of the primary endpoints within each slice."""
    worthwhile: float
    """A gain that is worth a promotion: what the number of missing patients is reckoned for."""
    guard_level: float = 0.0
    """Of the tests that guard; never below what the budget grants."""
    successor_margin: float = 0.0
    """How much worse than the anchor a contaminated champion's successor may be, primary ones."""


@dataclass(frozen=True)
class Evidence:
    """Comparisons on one test set."""

    champion: Mapping[str, Paired]
    """Endpoint -> candidate minus champion."""
    anchor: Mapping[str, Paired]
    """Endpoint -> candidate minus the first anchor; empty where the champion is the anchor."""
    slices: Mapping[str, Mapping[str, Paired]] = field(default_factory=dict)
    """Slice -> primary endpoint -> candidate minus champion."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Guarding endpoint -> why it cannot be judged in this project: its data set is not here."""
    opponent: str = "champion"
    """What the champion's side is called: of a first gate the untrained encoder."""
    contaminated: bool = False
    """The champion's training saw a patient who is erased now."""
    faults: tuple[str, ...] = ()
    """Why nothing can be concluded: contaminated, missing or foreign predictions."""


@dataclass(frozen=True)
class Verdict:
    """The outcome, and every reason for it in words without numbers of the test set."""

    outcome: Outcome
    level: float
    reasons: tuple[str, ...]
    needed_patients: int | None = None


def decide(rule: Rule, evidence: Evidence, level: float) -> Verdict:
    """Apply the rule at the level that the budget grants."""
    faults = [*evidence.faults, *_missing(rule, evidence)]
    if level <= 0:
        faults.append(SPENT)
    if faults:
        return Verdict(Outcome.INCONCLUSIVE, level, tuple(faults))
    guarded = _guarded(rule, evidence, level)
    worse = [name for name, guard in guarded.items() if guard.fails()]
    if worse:
        reasons = tuple(f"{name}: worse by more than its margin" for name in worse)
        return Verdict(Outcome.REJECT, level, reasons)
    better = holm({name: evidence.champion[name].p_better() for name in rule.primary}, level)
    unshown = [name for name, guard in guarded.items() if not guard.holds()]
    if unshown or not (better or evidence.contaminated):
        return _not_shown(rule, evidence, level, bool(better), unshown)
    reasons = tuple(f"{name}: better than the {evidence.opponent}" for name in sorted(better))
    if evidence.contaminated:
        reasons = (CONTAMINATED, *reasons)
    return Verdict(Outcome.PROMOTE, level, reasons)


def holm(p_values: Mapping[str, float], level: float) -> set[str]:
    """Return the names whose hypothesis is rejected by Holm's procedure at ``level``."""
    rejected: set[str] = set()
    for name in sorted(p_values, key=lambda name: p_values[name]):
        if not p_values[name] <= level / (len(p_values) - len(rejected)):  # nor if it is NaN
            break
        rejected.add(name)
    return rejected


def _missing(rule: Rule, evidence: Evidence) -> list[str]:
    wanted = {*rule.primary, *rule.margins} - set(evidence.absent)
    sides = {"champion": evidence.champion, "anchor": evidence.anchor}
    return [
        f"{name}: no comparison with the {side}"
        for side, found in sides.items()
        if found or side == "champion"
        for name in sorted(wanted - found.keys())
    ]


@dataclass(frozen=True)
class _Guard:
    """A comparison that must not be worse by more than ``margin``, at ``level``."""

    paired: Paired
    margin: float
    level: float

    def holds(self) -> bool:
        return self.paired.p_better(self.margin) <= self.level

    def fails(self) -> bool:
        return self.paired.is_worse(self.margin, self.level)

    def needed(self) -> int | None:
        return self.paired.needed(self.level, effect=0.0, margin=self.margin)


def _guarded(rule: Rule, evidence: Evidence, level: float) -> dict[str, _Guard]:
    guards = max(level, rule.guard_level)
    guarded = {
        f"{name} against the {side}": _Guard(found[name], margin, guards)
        for side, found in ((evidence.opponent, evidence.champion), ("anchor", evidence.anchor))
        if found
        for name, margin in rule.margins.items()
        if name not in evidence.absent
    }
    # The primary endpoints must not fall behind the anchor at all, or small steps add up.
    margin, strict = 0.0, level
    side, anchor = "anchor", evidence.anchor
    if evidence.contaminated:
        margin, strict = rule.successor_margin, guards
        side, anchor = (side, anchor) if anchor else (evidence.opponent, evidence.champion)
    guarded |= {
        f"{name} against the {side}": _Guard(anchor[name], rule.margins.get(name, margin), strict)
        for name in rule.primary
        if anchor
    }
    return guarded | {
        f"{name} in {part}": _Guard(found[name], rule.slice_margin, guards)
        for part, found in evidence.slices.items()
        for name in rule.primary
        if name in found
    }


def _not_shown(
    rule: Rule, evidence: Evidence, level: float, better: bool, unshown: list[str]
) -> Verdict:
    reasons = [f"{name}: not shown to be within its margin" for name in unshown]
    if evidence.contaminated:
        reasons, better = [CONTAMINATED, *reasons], True
    if not better:
        reasons.append(f"not shown to be better in {' or '.join(rule.primary)}")
    primary = [evidence.champion[name] for name in rule.primary]
    worthless = all(paired.is_worse(-rule.worthwhile, level) for paired in primary)
    if not better and worthless:
        reasons = ["no gain that is worth a promotion"]
        return Verdict(Outcome.REJECT, level, tuple(reasons))
    guarded = _guarded(rule, evidence, level)
    counts = [guarded[name].needed() for name in unshown]
    if not better:
        counts += [paired.needed(level, effect=rule.worthwhile) for paired in primary]
    known = [count for count in counts if count is not None]
    return Verdict(Outcome.INCONCLUSIVE, level, tuple(reasons), max(known, default=None))
