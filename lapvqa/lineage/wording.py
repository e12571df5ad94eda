"""What is known of a run in words, for the terminal and the drawn page alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from lapvqa.lineage.index import BY_RUN
from lapvqa.lineage.origins import EVALUATION, Origin
from lapvqa.lineage.runs import FINISHED
from lapvqa.recorder import span

SHORT = 12
"""Digits shown of a digest."""


def run_facts(origin: Origin) -> Iterator[tuple[str, str]]:
    """Yield name and value of what is known of a run, a line each."""
    run = origin.run
    yield "when", when(origin)
    if run.outcome != FINISHED:
        yield "outcome", run.outcome
    if run.stage == EVALUATION:
        yield (
            "encoder",
            f"{run.counts.get('encoder')}, weights {run.counts.get('digest', '')[:SHORT]}",
        )
    if run.counts.get("read"):
        yield "read", str(run.counts["read"])
    if run.params:
        yield "params", json.dumps(run.params, ensure_ascii=False)
    if origin.code:
        yield "code", code(origin)
    if run.environment:
        yield "environment", environment(run.environment)
    for name, value in (
        ("Prefect run", run.prefect_flow_run), ("MLflow run", run.mlflow_run),
        ("test samples", origin.test_samples and origin.test_samples[:SHORT]),
    ):  # fmt: skip
        if value:
            yield name, value


def when(origin: Origin) -> str:
    """Return when a run began, how long it took, and who made it if not `lapvqa run`."""
    made = "" if origin.made == BY_RUN or origin.stage == EVALUATION else f", made {origin.made}"
    if origin.started is None:
        return f"time unknown{made}"
    if not origin.run.seconds:  # the entry was written later, from dvc.lock
        return f"before {moment(origin.started)}{made}"
    return f"{moment(origin.started)}, took {span(origin.run.seconds)}{made}"


def code(origin: Origin) -> str:
    """Return the code in one line: digest, files, commit, and whether a patch lies on it."""
    parts = []
    if origin.code:
        number = origin.code.files
        files = f", {number} file{'s' * (number > 1)}" if number else ""
        parts.append(f"{origin.code.digest[:SHORT]}{files}")
    if origin.run.commit:
        state = ""
        if origin.run.dirty:
            patch = origin.run.patch
            state = (
                f" with local changes (patch {patch[:SHORT]})" if patch else " with local changes"
            )
        parts.append(f"commit {origin.run.commit[:SHORT]}{state}")
    return ", ".join(parts)


def environment(known: dict[str, Any]) -> str:
    """Return Python, torch, host, GPU and the lock's digest in one line."""
    packages = known.get("packages", {})
    lock = known.get("lock")
    parts = [
        f"Python {known['python']}" if "python" in known else None,
        f"torch {packages['torch']}" if "torch" in packages else None,
        f"on {known['host']}" if "host" in known else None,
        known.get("gpu") or "no GPU",
        f"lock {lock[:SHORT]}" if lock else None,
    ]
    return ", ".join(part for part in parts if part)


def moment(seconds: float) -> str:
    """Return a time (seconds since the epoch) as local date and time."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
