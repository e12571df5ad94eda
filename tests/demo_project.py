"""A project with a small demo archive ingested and tokenised, built once per test run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from jobs import make_job
from once import built_once

from lapvqa import inventory, storage
from lapvqa.firewall import firewall
from lapvqa.ingest import ingest
from lapvqa.machine import Machine
from lapvqa.networks.weights import serialise
from lapvqa.params import ModelParams, load_params
from lapvqa.pretrain.model import initial_model
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.synth.archive import write_demo
from lapvqa.text import tokens

MACHINE = Machine(workers=1, device="cpu")
REPOSITORY = Path(__file__).parents[1]


def ingested(factory: pytest.TempPathFactory, root: Path) -> Project:
    """Fill ``root`` with params.yaml, the demo archive and what the first stages wrote."""
    shutil.copytree(
        built_once(factory, "demo-project", _ingest),
        root,
        copy_function=shutil.copy2,  # the inventory knows the archive's times
        dirs_exist_ok=True,
    )
    return Project(root)


def build(factory: pytest.TempPathFactory, root: Path, sizes: ModelParams) -> Project:
    """Do the same, with an exported encoder of ``sizes`` that never learnt."""
    project = ingested(factory, root)
    folder = project.model_dir("captioning")
    encoder = initial_model(sizes, seed=5).vision_encoder
    storage.write_bytes(folder / "encoder_final.pt", serialise(encoder.state_dict()))
    storage.write_json(folder / "card.json", {"model": sizes.model_dump(), "init_seed": 0})
    return project


def _ingest(root: Path) -> None:
    project = Project(root)
    shutil.copy(REPOSITORY / "params.yaml", project.root)
    write_demo(root / "demo", patients=20, studies=48, seed=3, workers=1)
    params = load_params(project.params)
    for name, function, section in (
        ("inventory", inventory.run, params.inventory),
        ("ingest", ingest.run, params.ingest),
        ("tokens", tokens.run, params.tokens),
        ("firewall", firewall.run, (params.firewall, params.evaluate)),
    ):
        project.work_dir(name).mkdir(parents=True, exist_ok=True)
        recorder = Recorder(project.record(name), stage=name, quiet=True)
        function(section, make_job(project, MACHINE, recorder))
        recorder.close()
