"""Weights that a training goes on from: ``pretrain.continue_from`` names them by their sha256.

They lie in .lapvqa/starts/<sha256>/, with the members of all trainings behind them; `lapvqa
retrain` puts them there. As a parameter the digest stands in dvc.lock, so it is as much an input
of the stage as a file would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from lapvqa import storage
from lapvqa.errors import CheckpointError, MissingArtifactError, SplitLeakError
from lapvqa.networks.vocabulary import CutVocabulary, TokenModel
from lapvqa.networks.weights import load_weights
from lapvqa.params import PretrainParams
from lapvqa.pretrain.files import LAST_FILE
from lapvqa.pretrain.seen import no_longer_training
from lapvqa.project import Project
from lapvqa.schemas import MEMBERS, MEMBERS_FILE


@dataclass(frozen=True)
class Start:
    """Weights of a whole model, and a row per study that they have seen (MEMBERS)."""

    weights: Path
    members: pa.Table

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
        return None
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
    return Start(weights, storage.read_table(members, MEMBERS, made_by="pretrain"))


def load(start: Start, model: nn.Module, vocabulary: CutVocabulary) -> None:
    """Give ``model`` the weights of a start, and cut its vocabulary.

    Tokens that do not occur now share the mean of their rows.
    """
    load_weights(model, start.weights)
    assert isinstance(model, TokenModel)
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
    table = pa.Table.from_pylist(list(rows.values()), schema=MEMBERS)
    return table.sort_by([("role", "ascending"), ("study_key", "ascending")])
