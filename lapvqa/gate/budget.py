"""The error that one test set may still be asked for.

Each look at a test set tests one candidate, at a level that the budget grants. The levels of all
looks that promoted nothing add up to at most the budget; what a look that promoted had cost comes
back, since that hypothesis is settled (a sequentially rejective graphical procedure in its simplest
form, the fallback: Bretz et al., Statistics in Medicine 28 (2009); for modified algorithms Feng et
al., UAI 2022, arXiv 2203.11377). So the chance that any candidate which is no better gets promoted,
over all looks, is at most the budget, however the candidates were chosen, as long as the looks gave
verdicts and no numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PastLook:
    """One look at a test set: the level it was granted, and whether it promoted."""

    level: float
    promoted: bool


@dataclass(frozen=True)
class Budget:
    """``total``: the chance of a wrong promotion over all looks; ``share``: of the rest, per look.

    So a look never takes all that is left, and early ones, while there is much, see more.
    """

    total: float
    share: float
    least: float = 1e-4
    """A level below which a look would see nothing: the budget is spent."""

    def left(self, past: Sequence[PastLook]) -> float:
        """Return what may still be spent: the total less the looks that promoted nothing."""
        return max(0.0, self.total - sum(look.level for look in past if not look.promoted))

    def level(self, past: Sequence[PastLook]) -> float:
        """Return the level of the next look; 0 when the budget is spent."""
        granted = self.left(past) * self.share
        return granted if granted >= self.least else 0.0
