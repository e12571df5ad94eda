"""Weights that a training goes on from, or that its encoder begins with.

``pretrain.init`` names a folder of a ViT within the project, ours or of timm or transformers, whose
weights file has the sha256 ``init_sha256``. Whom they have seen is known of our own alone; what a
first training began with, the members of all that go on from it say.

``pretrain.continue_from`` names weights of a whole model by their sha256. They lie in
.lapvqa/starts/<sha256>/, with the members of all trainings behind them; `lapvqa retrain` puts them
there. As a parameter a digest stands in dvc.lock, so it is as much an input of the stage as a file
would be.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from lapvqa import storage
from lapvqa.errors import CheckpointError, MissingArtifactError, SplitLeakError
from lapvqa.images.transforms import MEAN, STD
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.networks.vocabulary import CutVocabulary, TokenModel
from lapvqa.networks.weights import load_weights, read_weights
from lapvqa.params import PretrainParams
from lapvqa.pretrain.files import ENCODER_FILE, LAST_FILE, SAFETENSORS_FILE
from lapvqa.pretrain.other_vits import load_other
from lapvqa.pretrain.seen import no_longer_training
from lapvqa.project import Project
from lapvqa.schemas import MEMBERS, MEMBERS_FILE

_FILES = (ENCODER_FILE, SAFETENSORS_FILE, "model.safetensors", "pytorch_model.bin")

_BEGAN_WITH = b"began_with"
"""In the metadata of members, which follow the weights from training to training."""

Normalisation = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Start:
    """Weights of a whole model, and a row per study that they have seen (MEMBERS).

    ``encoder_alone``: weights of a ViT, with the normalisation that its folder states.
    ``unknown``: sha256 of weights of which nobody knows whom they have seen.
    """

    weights: Path
    members: pa.Table
    encoder_alone: bool = False
    normalisation: Normalisation | None = None
    unknown: str | None = None

    def studies(self) -> frozenset[str]:
        """Return the studies that the weights were trained on."""
        trained = self.members.filter(pc.field("role") == "train")
        return frozenset(trained["study_key"].to_pylist())


def find_start(params: PretrainParams, project: Project) -> Start | None:
    """Return what the training goes on from; None if it begins from scratch.

    Raises MissingArtifactError if it is not here, CheckpointError if its bytes are others,
    SplitLeakError if it has seen what is no training data now.
    """
    if params.continue_from is None:
        if params.init is None:
            return None
        return _find_init(project.root / params.init, params.init_sha256, project)
    folder = project.start(params.continue_from)
    weights, members = folder / LAST_FILE, folder / MEMBERS_FILE
    if not (weights.exists() and members.exists()):
        raise MissingArtifactError(
            f"expected the weights that pretrain.continue_from names in .lapvqa/starts/"
            f"{params.continue_from[:12]}..., found none",
            hint="`lapvqa retrain --from champion` puts them there; null begins from scratch",
        )
    found = storage.sha256_file(weights)
    if found != params.continue_from:
        raise CheckpointError(
            f"expected weights with sha256 {params.continue_from[:12]}, found {found[:12]}",
            hint="delete that folder of .lapvqa/starts; `lapvqa retrain` fetches it again",
        )
    if fault := no_longer_training(project, members):
        raise SplitLeakError(fault, hint="`lapvqa retrain --from scratch`")
    return _known_by(weights, members)


def _find_init(path: Path, expected: str | None, project: Project) -> Start:
    folder = path if path.is_dir() else path.parent
    names = _FILES if path.is_dir() else (path.name,)
    weights = next((folder / name for name in names if (folder / name).is_file()), None)
    if weights is None:
        raise MissingArtifactError(
            f"expected weights at pretrain.init, {path.relative_to(project.root)}, found none",
            hint=f"a file, or a folder with one of {', '.join(_FILES)}; nothing is downloaded",
        )
    found = storage.sha256_file(weights)
    if found != expected:
        raise CheckpointError(
            f"expected weights with pretrain.init_sha256, {(expected or 'none')[:12]}, found "
            f"{found[:12]}",
            hint=f"if they are the ones you mean, set pretrain.init_sha256: {found}",
        )
    own = folder / MEMBERS_FILE
    if not own.exists():
        return Start(weights, MEMBERS.empty_table(), True, _normalisation(folder), found)
    if fault := no_longer_training(project, own):
        raise SplitLeakError(fault, hint="begin with other weights")
    return _known_by(weights, own, encoder_alone=True)


def _known_by(weights: Path, members: Path, *, encoder_alone: bool = False) -> Start:
    """Return weights and whom they have seen; what they once began with is known of no one."""
    table = storage.read_table(members, MEMBERS, made_by="pretrain")
    unknown = (table.schema.metadata or {}).get(_BEGAN_WITH)
    return Start(weights, table, encoder_alone, unknown=unknown.decode() if unknown else None)


def _normalisation(folder: Path) -> Normalisation | None:
    """Return mean and deviation per channel, as transformers or timm state them; None without."""
    for name, inner, keys in (
        ("preprocessor_config.json", None, ("image_mean", "image_std")),
        ("config.json", "pretrained_cfg", ("mean", "std")),
    ):
        if (folder / name).is_file():
            said = json.loads((folder / name).read_bytes())
            said = said.get(inner, said) if inner else said
            if all(isinstance(said.get(key), list) for key in keys):
                return said[keys[0]], said[keys[1]]
    return None


def load(start: Start, model: nn.Module, vocabulary: CutVocabulary) -> None:
    """Give ``model`` the weights of a start, and cut its vocabulary.

    Tokens that do not occur now share the mean of their rows.
    """
    assert isinstance(model, TokenModel)
    if start.encoder_alone:
        encoder = model.get_submodule("vision_encoder")
        assert isinstance(encoder, VisionEncoder)
        weights, theirs = read_weights(start.weights), start.normalisation
        load_other(encoder, weights, name=start.weights.name, ours=(MEAN, STD), theirs=theirs)
        vocabulary.cut(model)
        return
    load_weights(model, start.weights)
    table = model.token_table[1].weight.detach()
    occurs = torch.zeros(len(table), dtype=torch.bool)
    occurs[vocabulary.kept] = True
    shared = table[~occurs].mean(dim=0)
    vocabulary.cut(model)
    if vocabulary.others:
        with torch.no_grad():
            model.token_table[1].weight[-1] = shared


def with_members(own: pa.Table, start: Start | None) -> pa.Table:
    """Return the members of a training and of all before it: whom the weights have seen.

    Times add up. What the start has seen, was seen by the first step: no state of this training is
    without it.
    """
    if start is None:
        return own
    before = start.members.set_column(
        start.members.schema.get_field_index("times_best"), "times_best", start.members["times"]
    )
    rows: dict[str, dict[str, str | int]] = {}
    for row in [*before.to_pylist(), *own.to_pylist()]:
        known = rows.setdefault(row["study_key"], {**row, "times": 0, "times_best": 0})
        known["times"] += row["times"]
        known["times_best"] += row["times_best"]
        known["role"] = "train" if "train" in (known["role"], row["role"]) else row["role"]
    for study in start.studies():
        rows[study]["first_step"] = 1
    facts = {_BEGAN_WITH: start.unknown.encode()} if start.unknown else None
    schema = MEMBERS.with_metadata(facts)
    table = pa.Table.from_pylist(list(rows.values()), schema=schema)
    return table.sort_by([("role", "ascending"), ("study_key", "ascending")])
