"""A job as a stage gets it, for tests that call a stage's functions themselves."""

from __future__ import annotations

from lapvqa.job import Job, open_job
from lapvqa.machine import Machine
from lapvqa.project import Project
from lapvqa.recorder import Recorder


def make_job(
    project: Project, machine: Machine | None = None, recorder: Recorder | None = None
) -> Job:
    """Return the job of a project, with or without a params.yaml of its own."""
    machine = machine or Machine(workers=1, device="cpu")
    recorder = recorder or Recorder(project.record("test"), stage="test", quiet=True)
    if project.params.exists():
        return open_job(project, recorder, machine=machine)
    return Job(project, machine, recorder, {}, "captioning", keep_ids=False)
