"""Weights on disk: what export writes, what the loaders accept, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import write_project
from exporting import SIZES, pretrain_and_export

from lapvqa import storage
from lapvqa.errors import CheckpointError, MissingArtifactError
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.networks.weights import load_weights
from lapvqa.params import ModelParams
from lapvqa.pretrain import files
from lapvqa.pretrain.model import CaptioningModel, ContrastiveModel, initial_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    project = write_project(tmp_path_factory.mktemp("project"))
    return pretrain_and_export(project, repository, "captioning")


@pytest.fixture(scope="module", params=["contrastive", "sigmoid"])
def pair_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> Path:
    project = write_project(tmp_path_factory.mktemp(request.param))
    return pretrain_and_export(project, repository, request.param)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


IMAGES = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_every_file_holds_the_same_encoder(folder: Path) -> None:
    model = files.load_model(folder)
    load_weights(model, folder / "model_last.pt")
    expected = model.vision_encoder(IMAGES)
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


@torch.no_grad()
def test_a_pair_models_folder_gives_its_class(pair_folder: Path) -> None:
    model = files.load_model(pair_folder)
    assert isinstance(model, ContrastiveModel)
    assert not model.training
    load_weights(model, pair_folder / "model_last.pt")
    assert torch.equal(files.load_encoder(pair_folder)(IMAGES), model.vision_encoder(IMAGES))
    embeddings = model.embed_images(IMAGES)
    assert embeddings.shape == (2, 16)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    with pytest.raises(CheckpointError, match=f"found the objective {pair_folder.name}") as error:
        files.load_captioner(pair_folder)
    assert "pretrain.objective" in error.value.hint
    with pytest.raises(CheckpointError, match="expected a model that writes reports"):
        files.untrained_captioner(pair_folder)


def test_the_untrained_pair_model_starts_as_its_objective_does(pair_folder: Path) -> None:
    untrained = files.untrained_model(pair_folder)
    assert isinstance(untrained, ContrastiveModel)
    bias = -10.0 if pair_folder.name == "sigmoid" else 0.0
    assert untrained.logit_bias.item() == bias
    before = initial_model(SIZES, seed=11, objective=pair_folder.name).state_dict()
    found = untrained.state_dict()
    assert before.keys() == found.keys()
    assert all(torch.equal(before[name], found[name]) for name in before)
    encoder = files.untrained_encoder(pair_folder).state_dict()
    assert all(torch.equal(found[f"vision_encoder.{name}"], encoder[name]) for name in encoder)


@pytest.mark.parametrize("objective", ["captoining", None])
def test_an_unknown_objective_is_named(copy: Path, objective: str | None) -> None:
    card = json.loads((copy / "card.json").read_text())
    card["objective"] = objective
    storage.write_json(copy / "card.json", card)
    with pytest.raises(CheckpointError, match=f"found {objective!r}"):
        files.load_model(copy)


def test_weights_of_another_objective_do_not_fit(copy: Path) -> None:
    card = json.loads((copy / "card.json").read_text())
    card["objective"] = "contrastive"
    storage.write_json(copy / "card.json", card)
    with pytest.raises(
        CheckpointError, match=r"model_best\.pt does not fit ContrastiveModel: missing"
    ):
        files.load_model(copy)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("blocks.1.", "blocks.1._orig_mod._checkpoint_wrapped_module."),
    ],
    ids=["ddp", "compile", "both", "block by block"],
)
def test_wrapped_names_load(copy: Path, wrapped: Callable[[str], str]) -> None:
    for name in ("encoder_final.pt", "model_best.pt"):
        weights = torch.load(copy / name, weights_only=True)
        torch.save({wrapped(key): tensor for key, tensor in weights.items()}, copy / name)
    assert torch.equal(
        files.load_encoder(copy)(IMAGES), files.load_model(copy).vision_encoder(IMAGES)
    )


def test_two_tensors_of_one_name_are_refused(copy: Path) -> None:
    weights = torch.load(copy / "encoder_final.pt", weights_only=True)
    weights["_orig_mod.cls_token"] = weights["cls_token"] + 1
    torch.save(weights, copy / "encoder_final.pt")
    with pytest.raises(CheckpointError, match="31 tensors have only 30 names"):
        files.load_encoder(copy)


@pytest.mark.parametrize("wrapper", [None, "model_state"])
def test_a_whole_model_gives_its_encoder(copy: Path, wrapper: str | None) -> None:
    whole = torch.load(copy / "model_best.pt", weights_only=True)
    torch.save({wrapper: whole} if wrapper else whole, copy / "encoder_final.pt")
    expected = files.load_model(copy).vision_encoder(IMAGES)
    assert torch.equal(files.load_encoder(copy)(IMAGES), expected)


def test_an_encoder_in_place_of_a_model_is_said(copy: Path) -> None:
    (copy / "model_best.pt").write_bytes((copy / "encoder_final.pt").read_bytes())
    with pytest.raises(CheckpointError, match=r"load it into `model\.vision_encoder`"):
        files.load_model(copy)


def test_torchs_own_layers_are_refused_by_name(copy: Path) -> None:
    layer = torch.nn.TransformerEncoderLayer(32, 2, 128)
    theirs = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).state_dict()
    torch.save({"encoder_state": theirs}, copy / "encoder_final.pt")
    with pytest.raises(CheckpointError, match="does not say whether norms come first") as error:
        files.load_encoder(copy)
    assert "weights.from_torch_layers" in error.value.hint


def test_safetensors_are_read_and_damaged_ones_said(copy: Path) -> None:
    encoder = files.untrained_encoder(copy)
    path = copy / "encoder.safetensors"
    load_weights(encoder, path)
    assert torch.equal(encoder(IMAGES), files.load_encoder(copy)(IMAGES))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"expected weights in encoder\.safetensors"):
        load_weights(encoder, path)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({}, "dict with nothing"),
        ({"epoch": 3, "optimizer": {}}, "dict with epoch, optimizer"),
        ({1: torch.zeros(1)}, "dict with 1"),
    ],
)
def test_a_dictionary_of_something_else_is_described(copy: Path, value: Any, found: str) -> None:
    torch.save(value, copy / "encoder_final.pt")
    with pytest.raises(CheckpointError, match=f"found {found}"):
        files.load_encoder(copy)


def test_an_encoder_of_any_size_is_built_from_parameters(sizes: ModelParams) -> None:
    encoder = CaptioningModel(sizes).vision_encoder
    assert isinstance(encoder, VisionEncoder)
    assert encoder(IMAGES).shape == (2, 4, 32)
    assert encoder.patch_tokens(IMAGES).shape == (2, 16, 32)
