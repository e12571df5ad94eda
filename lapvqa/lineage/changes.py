"""What changed between two runs of a stage: parameters, code, inputs, environment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lapvqa.lineage.origins import Origin

PARAMETER, CODE, DATA, ENVIRONMENT = "parameter", "code", "input", "environment"
ABSENT = "(absent)"


@dataclass(frozen=True)
class Change:
    """One thing that differs."""

    kind: str
    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        if self.kind in (PARAMETER, ENVIRONMENT):
            return f"{self.name} {self.before} -> {self.now}"
        if self.before == ABSENT:
            return f"{self.kind} {self.name} added"
        return f"{self.kind} {self.name} {'removed' if self.now == ABSENT else 'changed'}"


def between(before: Origin, now: Origin, *, environment: bool = True) -> list[Change]:
    """Return what differs, parameters first."""
    code = [origin.code.listing if origin.code else {} for origin in (before, now)]
    found = [
        *differing(PARAMETER, flat(before.run.params), flat(now.run.params)),
        *differing(CODE, *code),
        *differing(DATA, before.run.deps, now.run.deps),
    ]
    if environment and before.run.environment and now.run.environment:
        old, new = flat(before.run.environment), flat(now.run.environment)
        found += differing(ENVIRONMENT, old, new)
    return found


def differing(kind: str, before: dict[str, Any], now: dict[str, Any]) -> Iterator[Change]:
    """Yield the keys with other values, by name; nothing if one side is not known at all."""
    if kind == CODE and not (before and now):
        return
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name, ABSENT), now.get(name, ABSENT)
        if old != new:
            yield Change(kind, name, old, new)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
