"""The ledger as W3C PROV, in PROV-JSON: runs are activities, artefacts entities.

w3.org/TR/prov-dm, w3.org/submissions/prov-json.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lapvqa import __version__, storage
from lapvqa.extras import optional
from lapvqa.lineage.ancestry import Ancestry, Told
from lapvqa.lineage.exports.parts import Artefact, checks, inputs, outputs
from lapvqa.lineage.runs import FINISHED

_SHOWN = 16


def write(ancestry: Ancestry, runs: list[Told], out: Path) -> int:
    """Write these runs to ``out`` as PROV-JSON; return how many records there are."""
    document = build(ancestry, runs)
    text: str = document.serialize(format="json", indent=1)
    storage.write_bytes(out, text.encode() + b"\n")
    return len(document.get_records())


def build(ancestry: Ancestry, runs: list[Told]) -> Any:
    """Return the prov.model.ProvDocument of these runs."""
    model = optional("prov.model", needed_for="export-lineage --format prov")
    document = model.ProvDocument()
    document.add_namespace("lapvqa", "urn:lapvqa:")
    agent = document.agent(
        "lapvqa:software",
        {"prov:type": model.PROV["SoftwareAgent"], "lapvqa:version": __version__},
    )
    known: dict[str, Any] = {}

    def entity(artefact: Artefact) -> Any:
        name = f"lapvqa:artefact/{(artefact.run or artefact.md5)[:_SHOWN]}/{artefact.path}"
        if name not in known:
            known[name] = document.entity(name, _about(artefact))
        return known[name]

    for told in runs:
        run = told.run
        activity = document.activity(
            f"lapvqa:run/{told.id[:_SHOWN]}", _time(run.started), _time(run.started + run.seconds),
            _told(ancestry, told),
        )  # fmt: skip
        document.wasAssociatedWith(activity, agent)
        for artefact in inputs(ancestry, told):
            document.used(activity, entity(artefact))
        if run.outcome == FINISHED:
            for artefact in outputs(told):
                document.wasGeneratedBy(entity(artefact), activity)
    return document


def _about(artefact: Artefact) -> dict[str, Any]:
    return {
        "prov:label": artefact.path,
        "lapvqa:md5": artefact.md5,
        **{f"lapvqa:{key}": _plain(value) for key, value in sorted(artefact.facts.items())},
    }


def _told(ancestry: Ancestry, told: Told) -> dict[str, Any]:
    run = told.run
    facts = {
        "stage": run.stage, "entry": told.id, "outcome": run.outcome, "commit": run.commit,
        "code": run.code, "params": run.params or None, "metrics": run.metrics or None,
        "environment": run.environment or None, "mlflow_run": run.mlflow_run,
        "prefect_flow_run": run.prefect_flow_run,
        "checks": {check.name: check.status for check in checks(ancestry, told)} or None,
    }  # fmt: skip
    return {
        "prov:label": run.stage,
        **{f"lapvqa:{key}": _plain(value) for key, value in facts.items() if value is not None},
    }


def _plain(value: Any) -> str | int | float:
    """Return a value as PROV-JSON brings it back: lists and mappings as JSON."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
