"""Take over the ledger of version 0.1: .lapvqa/ledger.jsonl, a line per finished stage.

It knew no run that a run stood on: the latest earlier run that left the same bytes stands for it,
which is what version 0.1 would have answered.
"""

from __future__ import annotations

import json
from typing import Any

from lapvqa.lineage import ledger
from lapvqa.lineage.ledger import CODE, RUN, Draft
from lapvqa.lineage.runs import Run, code_listing, of_entry
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import overlap

_KEYS = {
    "stage", "started", "seconds", "deps", "outs", "params", "git_commit", "git_dirty",
    "prefect_flow_run", "prefect_task_run", "mlflow_run",
}  # fmt: skip


def take_over(project: Project) -> int:
    """Write its entries into the ledger, once; return how many. The old file stays, renamed.

    A line that its writer left torn is no entry. Killed and called again, it goes on.
    """
    old = project.first_ledger
    if not old.exists():
        return 0
    lines = [line for line in map(_parsed, old.read_bytes().splitlines()) if line is not None]
    told = {
        (run.stage, run.started): entry.id
        for entry in ledger.entries(project)
        if (run := of_entry(entry))
    }
    made_by: dict[tuple[str, str], str] = {}
    written = 0
    outs = {path for line in lines for path in line["outs"]}
    for line in lines:
        run_id = told.get((line["stage"], line["started"]))
        if run_id is None:
            run_id = _write(project, line, outs, made_by)
            written += 1
        made_by |= dict.fromkeys(line["outs"].items(), run_id)
    old.replace(old.with_name("ledger-0.1.jsonl"))
    return written


def _write(
    project: Project, line: dict[str, Any], outs: set[str], made_by: dict[tuple[str, str], str]
) -> str:
    data = {
        path: md5 for path, md5 in line["deps"].items() if any(overlap(path, out) for out in outs)
    }
    code = code_listing({path: md5 for path, md5 in line["deps"].items() if path not in data})
    run = Run(
        stage=line["stage"], started=line["started"], seconds=line["seconds"],
        deps=data, outs=line["outs"], params=line["params"], code=code["digest"],
        sources={path: made_by[path, md5] for path, md5 in data.items() if (path, md5) in made_by},
        commit=line["git_commit"], dirty=line["git_dirty"],
        prefect_flow_run=line["prefect_flow_run"], prefect_task_run=line["prefect_task_run"],
        mlflow_run=line["mlflow_run"],
    )  # fmt: skip
    known = {e.payload["digest"] for e in ledger.entries(project) if e.kind == CODE and e.payload}
    listing = [Draft(CODE, code)] if code["digest"] not in known else []
    drafts = [*listing, Draft(RUN, run.payload(), line["started"])]
    return ledger.extend(project, lambda _: drafts)[-1]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and set(value) >= _KEYS else None
