"""A project with a small demo archive ingested, tokenised, and a model that never learnt."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs import make_job

from lapvqa import inventory, storage
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


def build(root: Path, repository: Path, sizes: ModelParams) -> Project:
    """Write the archive, run inventory, ingest and tokens, and export an encoder of ``sizes``."""
    project = Project(root)
    shutil.copy(repository / "params.yaml", project.root)
    write_demo(root / "demo", patients=20, studies=48, seed=3, workers=1)
    params = load_params(project.params)
    for name, function, section in (
        ("inventory", inventory.run, params.inventory),
        ("ingest", ingest.run, params.ingest),
        ("tokens", tokens.run, params.tokens),
    ):
        project.work_dir(name).mkdir(parents=True, exist_ok=True)
        recorder = Recorder(project.record(name), stage=name, quiet=True)
        function(section, make_job(project, MACHINE, recorder))
        recorder.close()
    folder = project.model_dir("captioning")
    encoder = initial_model(sizes, seed=5).vision_encoder
    storage.write_bytes(folder / "encoder_final.pt", serialise(encoder.state_dict()))
    storage.write_json(folder / "card.json", {"model": sizes.model_dump(), "init_seed": 0})
    return project
