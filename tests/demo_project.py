"""A project with a small demo archive ingested and tokenised, built once per test run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from jobs import run_until_pretraining
from once import built_once

from lapvqa import storage
from lapvqa.machine import Machine
from lapvqa.networks.weights import serialise
from lapvqa.params import ModelParams
from lapvqa.pretrain.model import initial_model
from lapvqa.project import Project
from lapvqa.synth.archive import write_demo

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
    run_until_pretraining(project, MACHINE)
