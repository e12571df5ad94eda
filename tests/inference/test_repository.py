"""The exported folder is what transformers and timm load, without this code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flows.commands.export import execute
from lapvqa import Encoder, storage
from lapvqa.errors import CheckpointError, ConfigError
from lapvqa.evaluation.contamination import training_of
from lapvqa.evaluation.encoders.open_encoder import open_encoder
from lapvqa.export import repository
from lapvqa.images.transforms import STD, to_input
from lapvqa.machine import Machine
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.networks.weights import serialise
from lapvqa.params import ModelParams, RecipeParams
from lapvqa.pretrain.model import initial_model
from lapvqa.pretrain.vit_names import from_transformers, to_transformers
from lapvqa.project import Project

SIZES = ModelParams(
    image_size=64, patch_size=9, width=32, depth=2, heads=2, pooled_grid=3,
    decoder_width=8, decoder_depth=1, decoder_heads=1,
)  # fmt: skip
TRAINING = {
    "objective": "captioning", "steps": 3, "train_pairs": 2, "data_digest": "d" * 64,
    "params": {"lr": 1e-3, "weight_decay": 0.2, "batch_size": 2, "flip": False},
}  # fmt: skip
# Stands before a script: any import of this project's packages fails, and so does the network.
WITHOUT_LAPVQA = """
import socket, sys
for name in ("lapvqa", "tasks", "flows"):
    sys.modules[name] = None
def refuse(*arguments, **others):
    raise OSError("no network here")
socket.socket.connect = refuse
"""
REPORT = "\nsys.stdout.buffer.write(features.numpy().tobytes())\n"


@pytest.fixture(scope="module")
def encoder() -> VisionEncoder:
    model = initial_model(SIZES, seed=4).vision_encoder.eval()
    noise = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # far from their start, or a wrong norm would not show
        parameter.data.add_(torch.randn(parameter.shape, generator=noise) * 0.1)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encoder: VisionEncoder) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    files = repository.contents(encoder, SIZES, TRAINING, RecipeParams())
    assert files == repository.contents(encoder, SIZES, TRAINING, RecipeParams())
    for name, content in files.items():
        storage.write_bytes(folder / name, content)
    (folder / repository.README).write_text(repository.usage(SIZES))
    return folder


@torch.no_grad()
def test_transformers_computes_the_same_tokens(folder: Path, encoder: VisionEncoder) -> None:
    from transformers import ViTModel

    theirs, loading = ViTModel.from_pretrained(
        folder, add_pooling_layer=False, local_files_only=True, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    found = theirs.eval()(images).last_hidden_state
    assert (found - encoder.forward_features(images)).abs().max() == 0


@torch.no_grad()
def test_timm_and_the_processor_compute_the_same(folder: Path, encoder: VisionEncoder) -> None:
    pixels = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, 384, 384), dtype=np.uint8)
    )
    tokens = encoder.patch_tokens(to_input(pixels, 64))
    for path in (folder, folder / "timm"):
        other = open_encoder(path)
        three = to_input(pixels, 64).expand(-1, 3, -1, -1)
        # Pillow rounds to whole grey levels after each axis: half of one, twice.
        assert (other.preprocess(pixels) - three).abs().max() < 1 / 255 / STD + 1e-5
        exact = other.tower(three)
        torch.testing.assert_close(exact, tokens, rtol=1e-5, atol=1e-5)


def test_it_says_whom_these_very_weights_have_seen(folder: Path, tmp_path: Path) -> None:
    assert training_of(folder) == training_of(folder / "timm") == "d" * 64
    shutil.copytree(folder, tmp_path / "other")
    storage.write_bytes(tmp_path / "other" / "model.safetensors", b"other weights")
    assert training_of(tmp_path / "other") is None
    assert training_of(tmp_path / "other" / "timm") == "d" * 64
    plan = tmp_path / "other" / "adaptation.json"
    said = json.loads(plan.read_text())
    said["pretraining"]["began_with"] = "e" * 64
    storage.write_json(plan, said)
    assert training_of(tmp_path / "other" / "timm") is None


def test_the_usage_runs_where_there_is_no_lapvqa(
    folder: Path, encoder: VisionEncoder, tmp_path: Path
) -> None:
    script = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert script is not None
    lines = [line for line in script[1].splitlines() if line]
    assert len(lines) <= 22
    (tmp_path / "usage.py").write_text(WITHOUT_LAPVQA + script[1] + REPORT)
    waves = np.sin(np.arange(500) / 40) * np.cos(np.arange(430) / 50)[:, None]
    film = tmp_path / "film.png"
    Image.fromarray((120 + 100 * waves).astype(np.uint8)).save(film)
    done = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "usage.py"), str(folder), str(film)],
        stdout=subprocess.PIPE, check=True, env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = np.frombuffer(done.stdout, np.float32).reshape(1, 32)
    own = tmp_path / "own"
    storage.write_bytes(own / "encoder_final.pt", serialise(encoder.state_dict()))
    storage.write_json(own / "card.json", {"model": SIZES.model_dump()})
    expected = Encoder.load(own, machine=Machine(workers=1, device="cpu"))(film)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_names_go_there_and_back(encoder: VisionEncoder) -> None:
    weights = encoder.state_dict()
    prefixed = {f"vit.{name}": tensor for name, tensor in to_transformers(weights).items()}
    prefixed["classifier.weight"] = torch.zeros(2, 32)
    back = from_transformers({**prefixed, "vit.pooler.dense.bias": torch.zeros(32)})
    assert set(back) == set(weights)
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())


def test_what_would_compute_something_else_is_not_written(
    encoder: VisionEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(weights):  # type: ignore[no-untyped-def]
        renamed = to_transformers(weights)
        query, key = (f"encoder.layer.0.attention.attention.{n}.weight" for n in ("query", "key"))
        renamed[query], renamed[key] = renamed[key], renamed[query]
        return renamed

    monkeypatch.setattr(repository, "to_transformers", swapped)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: outputs differ"):
        repository.contents(encoder, SIZES, TRAINING, RecipeParams())


def test_the_adaptation_plan_says_what_a_machine_needs(folder: Path) -> None:
    plan = json.loads((folder / "adaptation.json").read_text())
    assert plan["input"]["image_size"] == 64
    assert plan["output"]["patch_tokens"] == [7, 7, 32]
    assert plan["fine_tuning"]["encoder_lr"] == RecipeParams().encoder_lr


def test_a_licence_must_be_named(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((pytestconfig.rootpath / "params.yaml").read_bytes())
    for license, why in ((None, "expected a licence"), ("as you like", "--license: expected")):
        with pytest.raises(ConfigError, match=why):
            execute(Project(tmp_path), tmp_path / "hub", model=None, license=license)
    assert not (tmp_path / "hub").exists()
