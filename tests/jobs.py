"""A job as a stage gets it, for tests that call a stage's functions themselves."""

from __future__ import annotations

from lapvqa import inventory
from lapvqa.firewall import firewall
from lapvqa.ingest import ingest
from lapvqa.job import Job, open_job
from lapvqa.machine import Machine
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.text import tokens


def make_job(
    project: Project, machine: Machine | None = None, recorder: Recorder | None = None
) -> Job:
    """Return the job of a project, with or without a params.yaml of its own."""
    machine = machine or Machine(workers=1, device="cpu")
    recorder = recorder or Recorder(project.record("test"), stage="test", quiet=True)
    if project.params.exists():
        return open_job(project, recorder, machine=machine)
    return Job(project, machine, recorder, {}, "captioning", keep_ids=False)


def run_until_pretraining(project: Project, machine: Machine) -> None:
    """Run the stages from inventory to firewall, each as the stage's own process would."""
    params = load_params(project.params)
    for name, function, section in (
        ("inventory", inventory.run, params.inventory),
        ("ingest", ingest.run, params.ingest),
        ("tokens", tokens.run, params.tokens),
        ("firewall", firewall.run, (params.firewall, params.evaluate)),
    ):
        project.work_dir(name).mkdir(parents=True, exist_ok=True)
        recorder = Recorder(project.record(name), stage=name, quiet=True)
        try:
            function(section, make_job(project, machine, recorder))  # type: ignore[operator]
        finally:
            recorder.close()
