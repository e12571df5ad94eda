"""What a reader read, kept and left out: the sum is checked, so that nothing goes silently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lapvqa.errors import SourceError


@dataclass(frozen=True)
class Account:
    """Counts of one ``unit`` (rows, images); ``left_out``: reason -> how many."""

    unit: str
    read: int
    kept: int
    left_out: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.read != self.kept + sum(self.left_out.values()):
            raise ValueError(f"{self.unit}: {self.read} read, {self.kept} kept, {self.left_out}")

    def describe(self) -> dict[str, int]:
        """Return the counts under names for an evaluation's protocol."""
        reasons = {
            f"{self.unit}_left_out: {reason}": number
            for reason, number in sorted(self.left_out.items())
            if number
        }
        return {f"{self.unit}_read": self.read, f"{self.unit}_kept": self.kept, **reasons}

    def require_some(self, file: str, *, hint: str) -> None:
        """Raise SourceError with the reasons if nothing was kept."""
        if self.kept:
            return
        reasons = "; ".join(f"{reason}: {n}" for reason, n in sorted(self.left_out.items()) if n)
        raise SourceError(
            f"{file}: expected {self.unit} to use, found none among {self.read}"
            + (f" ({reasons})" if reasons else ""),
            hint=hint,
        )
