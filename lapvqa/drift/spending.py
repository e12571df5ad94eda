"""How much error a look may spend: by the time since the last one, so that looks are free.

The levels of the looks of a year add up to at most ``false_alarms_per_year``, which bounds the
expected number of false alarms whatever the number of looks and however they depend on each other
(uniform spending: Lan and DeMets, Biometrika 70 (1983), with a rate in place of an end).
"""

from __future__ import annotations

_SECONDS_OF_YEAR = 365.25 * 86400
MOST, LEAST = 0.05, 1e-4
"""A look never spends more, however late it comes; below the least it would see nothing."""


def level(false_alarms_per_year: float, seconds: float) -> float:
    """Return the level of a look so long after the last one, or after freezing; 0: too soon."""
    granted = min(MOST, false_alarms_per_year * max(seconds, 0.0) / _SECONDS_OF_YEAR)
    return granted if granted >= LEAST else 0.0


def draws(level: float, streams: int) -> int:
    """Return how many permutations can tell an alarm of the first of ``streams`` at ``level``."""
    return 1000 if level == 0 else max(1000, round(10 * streams / level))
