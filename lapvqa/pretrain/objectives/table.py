"""The objectives by the names that ``pretrain.objective`` takes."""

from __future__ import annotations

from lapvqa.pretrain.objectives.captioning import Captioning
from lapvqa.pretrain.objectives.coca import Coca
from lapvqa.pretrain.objectives.contrastive import Contrastive, PairwiseSigmoid
from lapvqa.pretrain.objectives.objective import Objective

OBJECTIVES: dict[str, type[Objective]] = {
    "captioning": Captioning,
    "contrastive": Contrastive,
    "sigmoid": PairwiseSigmoid,
    "coca": Coca,
}
"""Objective -> its class; ``model.MODELS`` has the model of each."""
