"""A project with a small demo archive ingested, tokenised, and a model that never learnt."""

from __future__ import annotations

import shutil
from pathlib import Path

from lapvqa import inventory, storage
from lapvqa.config import Machine
from lapvqa.dicom import ingest
from lapvqa.layout import Layout
from lapvqa.params import ModelParams, load_params
from lapvqa.pretrain.checkpoint import serialise
from lapvqa.pretrain.files import initial_model
from lapvqa.recorder import Recorder
from lapvqa.synth.archive import write_demo
from lapvqa.text import tokens

MACHINE = Machine(workers=1, device="cpu")


def build(root: Path, repository: Path, sizes: ModelParams) -> Layout:
    """Write the archive, run inventory, ingest and tokens, and export an encoder of ``sizes``."""
    layout = Layout(root)
    shutil.copy(repository / "params.yaml", layout.root)
    write_demo(root / "demo", patients=20, studies=48, seed=3, workers=1)
    params = load_params(layout.params)
    for name, function, section in (
        ("inventory", inventory.run, params.inventory),
        ("ingest", ingest.run, params.ingest),
        ("tokens", tokens.run, params.tokens),
    ):
        layout.work_dir(name).mkdir(parents=True, exist_ok=True)
        recorder = Recorder(layout.record(name), stage=name, quiet=True)
        function(section, layout, MACHINE, recorder)
        recorder.close()
    folder = layout.model_dir("captioning")
    encoder = initial_model(sizes, seed=5).vision_encoder
    storage.write_bytes(folder / "encoder_final.pt", serialise(encoder.state_dict()))
    storage.write_json(folder / "card.json", {"model": sizes.model_dump(), "init_seed": 0})
    return layout
