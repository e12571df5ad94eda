"""Weights on disk: what export writes, what the loaders accept, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import write_project
from ruamel.yaml import YAML

from lapvqa import storage
from lapvqa.config import Machine
from lapvqa.errors import CheckpointError, MissingArtifactError
from lapvqa.layout import Layout
from lapvqa.params import ExportParams, ModelParams, PretrainParams, read_yaml
from lapvqa.pretrain import export, files, train
from lapvqa.pretrain.encoder import VisionEncoder
from lapvqa.pretrain.model import CaptioningModel, initial_model
from lapvqa.recorder import Recorder

MACHINE = Machine(workers=1, device="cpu")


def pretrain_and_export(params: PretrainParams, layout: Layout, repository: Path) -> Path:
    """Run both stages; export reads the objective from params.yaml."""
    whole = read_yaml(repository / "params.yaml")
    whole["pretrain"] = params.model_dump(mode="json")
    with layout.params.open("w") as handle:
        YAML().dump(whole, handle)
    recorder = Recorder(layout.record("pretrain"), stage="pretrain")
    train.run(params, layout, MACHINE, recorder)
    export.run(ExportParams(), layout, MACHINE, recorder)
    recorder.close()
    return layout.model_dir("captioning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    params = PretrainParams(
        model=ModelParams(
            image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
            decoder_width=32, decoder_depth=1, decoder_heads=2,
        ),
        epochs=1, batch_size=4, lr=3e-3, seed=11,
    )  # fmt: skip
    layout = write_project(tmp_path_factory.mktemp("project"))
    return pretrain_and_export(params, layout, repository)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


IMAGES = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_every_file_holds_the_same_encoder(folder: Path) -> None:
    expected = files.load_model(folder).vision_encoder(IMAGES)
    assert expected.shape == (2, 4, 32)
    encoder = files.load_encoder(folder)
    assert not encoder.training
    assert torch.equal(encoder(IMAGES), expected)
    plain = safetensors.torch.load_file(folder / "encoder.safetensors")
    encoder.load_state_dict(plain)
    assert torch.equal(encoder(IMAGES), expected)


def test_the_card_says_what_the_weights_are(folder: Path) -> None:
    card = files.read_card(folder)
    assert card["objective"] == "captioning"
    assert card["init_seed"] == 11
    assert card["model"]["width"] == 32
    assert card["input"]["shape"] == ["B", "1 or 3", 32, 32]
    assert card["input"]["normalisation"] == {"divide": 255, "mean": 0.5, "std": 0.25}
    assert card["output"] == {"pooled_tokens": 4, "patch_tokens": 16, "width": 32}
    assert set(card["sha256"]) == {"model_best.pt", "encoder_final.pt", "encoder.safetensors"}
    for name, digest in card["sha256"].items():
        assert storage.sha256_file(folder / name) == digest


def test_the_untrained_model_is_the_one_before_the_first_step(folder: Path) -> None:
    before = initial_model(ModelParams(**files.read_card(folder)["model"]), seed=11).eval()
    untrained = files.untrained_encoder(folder)
    assert torch.equal(untrained(IMAGES), before.vision_encoder(IMAGES))
    assert not torch.allclose(untrained(IMAGES), files.load_encoder(folder)(IMAGES))
    assert not files.untrained_model(folder).training


def test_loading_leaves_the_random_numbers_of_others_alone(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    files.load_model(folder)
    files.untrained_model(folder)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("wrapper", ["encoder_state", "model_state"])
def test_the_sibling_form_loads(copy: Path, wrapper: str) -> None:
    weights = torch.load(copy / "encoder_final.pt", weights_only=True)
    torch.save({wrapper: weights, "epoch": 3}, copy / "encoder_final.pt")
    assert torch.equal(
        files.load_encoder(copy)(IMAGES), files.load_model(copy).vision_encoder(IMAGES)
    )


def test_a_checkpoint_that_does_not_fit_is_named(copy: Path) -> None:
    weights = torch.load(copy / "encoder_final.pt", weights_only=True)
    renamed = {**weights, "head.weight": torch.zeros(2)}
    del renamed["cls_token"]
    renamed["norm.weight"] = torch.zeros(7)
    torch.save(renamed, copy / "encoder_final.pt")
    with pytest.raises(CheckpointError) as error:
        files.load_encoder(copy)
    text = str(error.value)
    assert "encoder_final.pt does not fit VisionEncoder" in text
    assert "missing 1 of 30: cls_token" in text
    assert "unexpected 1 of 30: head.weight" in text
    assert "norm.weight is [7], expected [32]" in text


def test_sizes_of_another_card_do_not_fit(copy: Path) -> None:
    card = json.loads((copy / "card.json").read_text())
    card["model"]["width"] = 64
    storage.write_json(copy / "card.json", card)
    with pytest.raises(CheckpointError, match=r"blocks\.0\.attn\.proj\.bias|cls_token is"):
        files.load_encoder(copy)
    card["model"]["widht"] = 64
    storage.write_json(copy / "card.json", card)
    with pytest.raises(CheckpointError, match="widht"):
        files.load_encoder(copy)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut"])
def test_damaged_weights_are_said(copy: Path, content: bytes) -> None:
    (copy / "encoder_final.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"expected weights in encoder_final\.pt"):
        files.load_encoder(copy)


class Exploit:
    """What a hostile weights file does on loading."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code of the file ran')",))


def test_code_in_a_weights_file_does_not_run(copy: Path) -> None:
    torch.save({"cls_token": Exploit()}, copy / "encoder_final.pt")
    with pytest.raises(CheckpointError, match="damaged or unsafe"):
        files.load_encoder(copy)


def test_something_else_than_weights_is_said(copy: Path) -> None:
    torch.save([1, 2], copy / "model_best.pt")
    with pytest.raises(
        CheckpointError, match=r"expected a state dict in model_best\.pt, found list"
    ):
        files.load_model(copy)


def test_missing_files_name_the_stage(copy: Path) -> None:
    (copy / "encoder_final.pt").unlink()
    with pytest.raises(MissingArtifactError, match="lapvqa run --stage export"):
        files.load_encoder(copy)
    (copy / "model_best.pt").unlink()
    with pytest.raises(MissingArtifactError, match="lapvqa run --stage pretrain"):
        files.load_model(copy)
    (copy / "card.json").unlink()
    with pytest.raises(MissingArtifactError, match="lapvqa run --stage export"):
        files.read_card(copy)


def test_export_twice_gives_the_same_bytes(folder: Path) -> None:
    names = ("encoder_final.pt", "encoder.safetensors", "card.json")
    before = {name: storage.sha256_file(folder / name) for name in names}
    layout = Layout(folder.parents[1])
    recorder = Recorder(layout.record("export"), stage="export")
    counts = export.run(ExportParams(), layout, MACHINE, recorder)
    recorder.close()
    assert {name: storage.sha256_file(folder / name) for name in names} == before
    assert counts["encoder_tensors"] == 30


def test_export_refuses_weights_that_compute_something_else(sizes: ModelParams) -> None:
    encoder = initial_model(sizes, seed=0).vision_encoder
    weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    export.check_parity(encoder, weights, sizes, "same.pt", 1e-6)
    weights["blocks.1.mlp.fc2.bias"][3] += 1e-3
    with pytest.raises(CheckpointError, match=r"other\.pt: outputs differ by"):
        export.check_parity(encoder, weights, sizes, "other.pt", 1e-6)


@pytest.mark.slow
def test_the_published_snippet_runs_at_full_size(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    made = CaptioningModel()
    torch.save(made.state_dict(), tmp_path / "model_best.pt")
    torch.save(made.vision_encoder.state_dict(), tmp_path / "encoder_final.pt")
    del made

    model = CaptioningModel()
    model.load_state_dict(torch.load(tmp_path / "model_best.pt", map_location="cpu"))
    model.eval()
    model.vision_encoder.load_state_dict(
        torch.load(tmp_path / "encoder_final.pt", map_location="cpu")
    )
    with torch.no_grad():
        tokens = model.vision_encoder(torch.randn(1, 3, 384, 384))
    assert tokens.shape == (1, 256, 1024)
    assert torch.isfinite(tokens).all()
    assert len(model.vision_encoder.state_dict()) == 294
    assert sum(parameter.numel() for parameter in model.vision_encoder.parameters()) == 303_663_104


def test_an_encoder_of_any_size_is_built_from_parameters(sizes: ModelParams) -> None:
    encoder = CaptioningModel(sizes).vision_encoder
    assert isinstance(encoder, VisionEncoder)
    assert encoder(IMAGES).shape == (2, 4, 32)
    assert encoder.patch_tokens(IMAGES).shape == (2, 16, 32)
