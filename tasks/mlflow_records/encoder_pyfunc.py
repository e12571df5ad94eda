"""The registered encoder: what MLflow loads as ``models:/lapvqa-encoder@champion``.

MLflow copies this file into the model ("models from code": no pickle) and runs it on load, beside
encoder.safetensors and card.json. It needs the package lapvqa.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray
from safetensors.torch import load_file

from lapvqa.images.transforms import to_input
from lapvqa.params import ModelParams, validate
from lapvqa.pretrain.model import build_encoder

_BATCH = 32


class Encoder(PythonModel):
    """Radiographs in, features out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the encoder from card.json and load its weights."""
        card = json.loads(Path(context.artifacts["card"]).read_bytes())
        self.sizes = validate(ModelParams, card["model"], "card.json")
        self.encoder = build_encoder(self.sizes).eval()
        self.encoder.load_state_dict(load_file(context.artifacts["weights"]))

    @torch.inference_mode()
    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,  # MLflow knows only the bare type
        params: dict[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """Map images [B, H, W] (uint8, or float of 0..255) to features [B, tokens, width].

        Images are what ingest stores: 384 x 384, black surroundings, bright bones. Raises
        ValueError for another shape or for values outside 0..255.
        """
        images = np.asarray(model_input)
        if images.ndim != 3:
            raise ValueError(f"expected images [B, H, W], found shape {list(images.shape)}")
        if images.size and not (images.min() >= 0 and images.max() <= 255):
            raise ValueError("expected pixel values in 0..255, found others")
        features = [
            self.encoder(to_input(torch.from_numpy(part), self.sizes.image_size)).numpy()
            for part in np.array_split(images, max(1, -(-len(images) // _BATCH)))
        ]
        return np.concatenate(features)


mlflow.models.set_model(Encoder())
