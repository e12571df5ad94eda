"""Run one stage: ``python -m lapvqa.stage NAME``. What dvc.yaml calls; no orchestrator inside.

A stage function takes its own section of params.yaml and the job, writes its outputs, and returns
its closing counts.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lapvqa import runtime, storage
from lapvqa.errors import (
    EXIT_FAULT,
    EXIT_INTERRUPTED,
    EXIT_USER,
    ConfigError,
    LapvqaError,
    of_the_machine,
)
from lapvqa.evaluation import task_table
from lapvqa.job import Counts, Job, open_job
from lapvqa.lineage import environment
from lapvqa.params import Params, load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder

StageFunction = Callable[[Any, Job], Counts]

# Stage -> (its module, what it gets of the parameters): ``run`` of that module, or of an evaluation
# the record of the task there. Modules are imported on use: ingest must not pay for torch.
STAGES: dict[str, tuple[str, Callable[[Params], Any]]] = {
    "inventory": ("lapvqa.inventory", lambda params: params.inventory),
    "ingest": ("lapvqa.ingest.ingest", lambda params: params.ingest),
    "tokens": ("lapvqa.text.tokens", lambda params: params.tokens),
    "firewall": ("lapvqa.firewall.firewall", lambda params: (params.firewall, params.evaluate)),
    "pretrain": ("lapvqa.pretrain.train", lambda params: params.pretrain),
    "export": ("lapvqa.export.export", lambda params: params.export),
    **{
        f"evaluate@{task}": (module, lambda params: params.evaluate)
        for task, module in task_table.EVALUATIONS.items()
    },
    "report": ("lapvqa.report.page", lambda params: params.report),
}


def run_stage(name: str, project: Project) -> Counts:
    """Run one stage in this process, holding the lock on its working folder."""
    if name not in STAGES:
        raise ConfigError(f"unknown stage {name!r}", hint=f"stages: {', '.join(STAGES)}")
    module_name, section = STAGES[name]
    params = load_params(project.params)
    started = time.time()
    with storage.lock(project.work_dir(name).with_suffix(".lock"), what=f"stage {name}"):
        project.work_dir(name).mkdir(parents=True, exist_ok=True)
        project.failure(name).unlink(missing_ok=True)
        recorder = Recorder(project.record(name), stage=name)
        try:
            function = _function(name, module_name)
            counts = function(section(params), open_job(project, recorder))
            recorder.summary(counts)
            seconds = time.time() - started + recorder.seconds_before()
        finally:
            recorder.close()
        # Ids of the records that this run belongs to stay beside, never inside, its outputs:
        # an id within an output would change its hash on every run.
        ids = {key: value for key, value in os.environ.items() if key.startswith("LAPVQA_ID_")}
        facts = {
            "stage": name, "started": started, "seconds": seconds,
            "counts": counts, "ids": ids, "environment": environment.facts(project),
        }  # fmt: skip
        storage.write_json(project.run_file(name), facts)
    return counts


def _function(name: str, module_name: str) -> StageFunction:
    task = name.partition("@")[2]
    if not task:
        function: StageFunction = importlib.import_module(module_name).run
        return function
    from lapvqa.evaluation.evaluate import evaluate, pipeline_encoders

    record = task_table.find(task)
    return lambda params, job: evaluate(record, pipeline_encoders(job), params, job)


def code_modules(name: str) -> tuple[str, ...]:
    """Return the modules where the closure of a stage's code starts (``lapvqa.code``)."""
    module_name, _ = STAGES[name]
    task = name.partition("@")[2]
    return (module_name, task_table.find(task).judge_module) if task else (module_name,)


def _keep_failure(error: LapvqaError, stage: str, project: Project) -> None:
    """Keep the error for whoever started this process: `dvc repro` ends with 255 for all."""
    if stage not in STAGES:
        return
    facts = {
        "error": type(error).__name__, "message": error.message, "hint": error.hint,
        "exit_code": error.exit_code,
    }  # fmt: skip
    try:
        storage.write_json(project.failure(stage), facts)
    except (LapvqaError, OSError) as full:  # a full disk: what was printed must do
        sys.stderr.write(f"could not keep the error: {full}\n")


def main(arguments: list[str]) -> int:
    """Run the stage named on the command line; return the exit code."""
    runtime.die_with_parent()
    runtime.one_blas_thread()
    runtime.seldom_look_for_garbage()
    runtime.escape_what_cannot_be_shown()
    if len(arguments) != 1:
        sys.stderr.write(f"usage: python -m lapvqa.stage NAME\nstages: {', '.join(STAGES)}\n")
        return EXIT_USER
    project = Project(Path.cwd())
    try:
        counts = run_stage(arguments[0], project)
    except LapvqaError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        _keep_failure(error, arguments[0], project)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the next run continues from here\n")
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence names the fault as ours
        refused = of_the_machine(error, project.root)
        if refused is not None:
            sys.stderr.write(f"{type(refused).__name__}: {refused}\n")
            _keep_failure(refused, arguments[0], project)
            return refused.exit_code
        traceback.print_exc()
        sys.stderr.write("this is a fault of LAPVQA; please report the lines above\n")
        return EXIT_FAULT
    sys.stdout.write(f"{arguments[0]}: {json.dumps(counts)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
