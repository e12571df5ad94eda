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

import numpy as np
import torch
from numpy.typing import NDArray

from lapvqa.errors import ConfigError
from lapvqa.pretrain.files import load_model
from lapvqa.pretrain.model import CaptioningModel, ContrastiveModel
from lapvqa.text.bpe import EOT, encoding

Vector = NDArray[np.float32]

WORDS_WIDTH = 256
_BITS = 64


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
    """The pipeline's model: its decoder's token table, or its text encoder."""

    def __init__(self, folder: Path) -> None:
        self._model = load_model(folder)
        table = self._model.token_table[1]
        self.width = table.embedding_dim
        if isinstance(self._model, CaptioningModel):
            self.about = f"own: mean of the decoder's token embeddings [{self.width}], length 1"
        else:
            self.about = f"own: the text encoder's output [{self.width}], length 1"

    @torch.inference_mode()
    def encode(self, text: str) -> Vector:
        """Map a phrase to the mean of its tokens, embedded or encoded."""
        if isinstance(self._model, ContrastiveModel):
            tokens = [EOT, *encoding().encode_ordinary(text.strip()), EOT]  # as in training
            ids = torch.tensor([tokens])
            valid = torch.ones_like(ids, dtype=torch.bool)
            found = self._model.text_encoder(ids, valid)[0]
        else:
            ids = torch.tensor(encoding().encode_ordinary(" " + " ".join(text.split())))
            found = self._model.token_table[1](ids).mean(dim=0)
        vector: Vector = found.float().numpy()
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
                "evaluate.pg.phrase_encoder is own, but the encoder stands alone, without a model",
                hint="use words, or the folder of a CLIP or SigLIP checkpoint of transformers",
            )
        return OwnPhrases(model)
    if Path(choice).is_dir():
        return phrase_encoder(Path(choice))
    raise ConfigError(
        f"evaluate.pg.phrase_encoder is {choice!r}, which is no folder here",
        hint="accepted: words, own, or the local folder of a CLIP or SigLIP checkpoint of "
        "transformers with its tokenizer.json",
    )


def phrase_encoder(path: Path) -> PhraseEncoder:
    """Open the text tower of a transformers CLIP or SigLIP folder with its tokenizer.json."""
    # Imported here: words and own need no transformers.
    from lapvqa.evaluation.encoders.text_from_transformers import TransformersPhrases

    return TransformersPhrases(path)
