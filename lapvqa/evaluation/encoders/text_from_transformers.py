"""Phrases through the text tower of a transformers CLIP or SigLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapvqa.errors import CheckpointError
from lapvqa.evaluation.encoders.folders import find_weights, read_config
from lapvqa.evaluation.encoders.from_transformers import load_part
from lapvqa.evaluation.encoders.packages import optional
from lapvqa.evaluation.encoders.phrases import PhraseEncoder, Vector

_MODELS = {"clip": "CLIPModel", "siglip": "SiglipModel"}


class TransformersPhrases(PhraseEncoder):
    """The library's own text feature, projected into the space that it shares with images.

    Raises MissingPackageError without transformers, CheckpointError for another kind of folder.
    """

    def __init__(self, folder: Path) -> None:
        kind = read_config(folder / "config.json").get("model_type")
        if kind not in _MODELS:
            raise CheckpointError(
                f"config.json: model_type is {kind!r}, whose text tower is not known",
                hint=f"known: {', '.join(_MODELS)}",
            )
        find_weights(folder, ("tokenizer.json",))
        library = optional("transformers", needed_for=f"the folder {folder.name}")
        # The tokenizer as its file says, whatever class the folder names.
        self._tokenizer = library.PreTrainedTokenizerFast.from_pretrained(
            folder, local_files_only=True
        )
        self._model: Any = load_part(folder, _MODELS[kind], "")
        self._fixed_length = kind == "siglip"
        config: Any = self._model.config
        self._positions: int = config.text_config.max_position_embeddings
        if self._fixed_length and self._tokenizer.pad_token is None:
            raise CheckpointError(
                "tokenizer_config.json: expected a pad_token, found none",
                hint="SigLIP reads texts filled up to a fixed length; copy the whole folder",
            )
        self.about = f"transformers {_MODELS[kind]} text feature, lower case, length 1"
        self.width = len(self.encode("a"))

    @torch.inference_mode()
    def encode(self, text: str) -> Vector:
        """Map a phrase to the text feature.

        Lower case, as both were trained. SigLIP sees the padding to its fixed length, as in
        training; CLIP sees none.
        """
        options: dict[str, Any] = {"truncation": True, "max_length": self._positions}
        if self._fixed_length:
            options["padding"] = "max_length"
        inputs = self._tokenizer(text.lower(), **options)
        ids = torch.tensor([inputs["input_ids"]])
        feature = self._model.get_text_features(input_ids=ids).pooler_output[0]
        vector: Vector = feature.numpy().astype(np.float32)
        return vector
