"""Phrases as vectors of length 1, for heads that read a phrase beside an image (grounding).

``words`` needs no weights: what it tells apart, it tells by words alone. ``own`` uses what the
pipeline's model learnt; a path, a transformers folder with CLIP's or SigLIP's text tower. A phrase
is encoded alone, so its bits do not depend on its neighbours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lapvqa.errors import CheckpointError, ConfigError
from lapvqa.evaluation.encoders.external import find_weights, read_config
from lapvqa.evaluation.encoders.from_transformers import load_part
from lapvqa.evaluation.encoders.packages import optional
from lapvqa.networks.device import ON_CPU
from lapvqa.pretrain.files import load_model
from lapvqa.text.bpe import EOT, encoding

Vector = NDArray[np.float32]

WORDS_WIDTH = 256
_BITS = 64

_TEXT_MODELS = {"clip": "CLIPModel", "siglip": "SiglipModel"}
"""``model_type`` of config.json -> the class with its text tower."""


class PhraseEncoder(ABC):
    """Maps phrases to rows of length 1. ``about``: what it is, for the protocol of a result."""

    width: int
    about: str

    @abstractmethod
    def encode(self, text: str) -> Vector:
        """Map one phrase to a vector [width], of any length."""

    def __call__(self, texts: Sequence[str]) -> Vector:
        """Map n phrases to float32 [n, width]; ValueError for one without a word."""
        rows = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            if not text.strip():
                raise ValueError("expected phrases with words, found an empty one")
            vector = self.encode(text).astype(np.float64)
            row[:] = vector / np.linalg.norm(vector)
        return rows


class WordPhrases(PhraseEncoder):
    """The sum of a fixed pseudo-random vector per GPT-2 token; case and order do not matter."""

    width = WORDS_WIDTH
    about = f"words: sum of random signs [{WORDS_WIDTH}] per GPT-2 token, length 1, no weights"

    def encode(self, text: str) -> Vector:
        """Sum the vectors of the tokens of ``text``, lower-cased, each word after a blank."""
        tokens = encoding().encode_ordinary(" " + " ".join(text.lower().split()))
        summed: Vector = np.sum([token_signs(token) for token in tokens], axis=0, dtype=np.float32)
        return summed


@cache
def token_signs(token: int) -> Vector:
    """Return the token's signs [256]: the first 256 bits of Philox with the token as key.

    Raw bits, because numpy promises them for ever, unlike its distributions.
    """
    raw = np.random.Philox(key=token).random_raw(WORDS_WIDTH // _BITS).astype("<u8")
    signs: Vector = np.unpackbits(raw.view(np.uint8)).astype(np.float32) * 2 - 1
    return signs


class OwnPhrases(PhraseEncoder):
    """The pipeline's model: what reads whole reports, or else its token table."""

    def __init__(self, folder: Path) -> None:
        self._model = load_model(folder)
        table = self._model.token_table[1]
        self.width = table.embedding_dim
        table_alone = "mean of the decoder's token embeddings"
        said = "the text encoder's output" if self._model.reads else table_alone
        self.about = f"own: {said} [{self.width}], length 1"

    @ON_CPU.inference()
    def encode(self, text: str) -> Vector:
        """Map a phrase to the mean of its tokens, embedded or encoded."""
        if self._model.reads:
            tokens = [EOT, *encoding().encode_ordinary(text.strip()), EOT]  # as in training
        else:
            tokens = encoding().encode_ordinary(" " + " ".join(text.split()))
        vector: Vector = self._model.phrase(torch.tensor(tokens)).float().numpy()
        return vector


class TransformersPhrases(PhraseEncoder):
    """CLIP's or SigLIP's own text feature, in the space that it shares with images.

    Raises MissingPackageError without transformers, CheckpointError for another kind of folder.
    """

    def __init__(self, folder: Path) -> None:
        kind = read_config(folder / "config.json").get("model_type")
        if kind not in _TEXT_MODELS:
            raise CheckpointError(
                f"config.json: model_type is {kind!r}, whose text tower is not known",
                hint=f"known: {', '.join(_TEXT_MODELS)}",
            )
        find_weights(folder, ("tokenizer.json",))
        library = optional("transformers", needed_for=f"the folder {folder.name}")
        # The tokenizer as its file says, whatever class the folder names.
        self._tokenizer = library.PreTrainedTokenizerFast.from_pretrained(
            folder, local_files_only=True
        )
        self._model: Any = load_part(folder, _TEXT_MODELS[kind], "")
        self._fixed_length = kind == "siglip"
        config: Any = self._model.config
        self._positions: int = config.text_config.max_position_embeddings
        if self._fixed_length and self._tokenizer.pad_token is None:
            raise CheckpointError(
                "tokenizer_config.json: expected a pad_token, found none",
                hint="SigLIP reads texts filled up to a fixed length; copy the whole folder",
            )
        self.about = f"transformers {_TEXT_MODELS[kind]} text feature, lower case, length 1"
        self.width = len(self.encode("a"))

    @ON_CPU.inference()
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


def open_phrases(choice: str, model: Path | None) -> PhraseEncoder:
    """Return the phrase encoder of ``evaluate.pg.phrase_encoder``: words, own or a local folder.

    ``model``: folder of the pipeline's model, for ``own``. Raises ConfigError for a choice that is
    none of these.
    """
    if choice == "words":
        return WordPhrases()
    if choice == "own":
        if model is None:
            raise ConfigError(
                "evaluate.pg.phrase_encoder is own, but this encoder comes without a model",
                hint="use words, or the folder of a CLIP or SigLIP checkpoint of transformers",
            )
        return OwnPhrases(model)
    if Path(choice).is_dir():
        return TransformersPhrases(Path(choice))
    raise ConfigError(
        f"evaluate.pg.phrase_encoder is {choice!r}, which is no folder here",
        hint="accepted: words, own, or the local folder of a CLIP or SigLIP checkpoint of "
        "transformers with its tokenizer.json",
    )
