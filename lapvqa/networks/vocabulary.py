"""Train on the tokens that occur, with the result of training on all 50257.

Reports use a few hundred to a few thousand of GPT-2's tokens. If the rows of all others start
equal, every step of the full softmax treats them equally, so they stay equal: one shared row,
weighted by the number of tokens it stands for, carries them through training exactly. The head,
its optimizer state and every checkpoint shrink by the same factor. (Exact but for two roundings of
the optimizer: AdamW's epsilon and the gradient norm see one row where there would be many.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lapvqa.networks.decoder import GPT2_VOCABULARY
from lapvqa.networks.encoder import Embedding


@runtime_checkable
class TokenModel(Protocol):
    """A model with a table of the vocabulary; each is an nn.Module."""

    @property
    def token_table(self) -> tuple[str, Embedding]:
        """The name of the table's weight in the state dict, and the table."""


class CutVocabulary:
    """The A tokens that occur, numbered 0..A-1 in the order of their ids, and A for all others.

    ``log_count`` [A + 1]: log of how many tokens a row stands for; add it to the logits.
    """

    def __init__(self, reports: Iterable[NDArray[np.uint16]]) -> None:
        occurs = np.zeros(GPT2_VOCABULARY, dtype=bool)
        for report in reports:
            occurs[report] = True
        self.kept = torch.from_numpy(np.flatnonzero(occurs))
        self.others = GPT2_VOCABULARY - len(self.kept)
        self.log_count = torch.zeros(len(self.kept) + 1)
        self.log_count[-1] = math.log(self.others) if self.others else -math.inf
        self._number = torch.full((GPT2_VOCABULARY,), len(self.kept))
        self._number[self.kept] = torch.arange(len(self.kept))

    def __len__(self) -> int:
        return len(self.kept) + 1

    def number(self, token_ids: Tensor) -> Tensor:
        """Map GPT-2 ids of any shape to numbers of the cut vocabulary; -100 stays."""
        return torch.where(token_ids < 0, token_ids, self._number[token_ids.clamp(min=0)])

    def cut(self, model: TokenModel) -> None:
        """Replace the model's table by the kept rows and one zero row for all others."""
        _, embedding = model.token_table
        rows = self.rows_of(embedding.weight.detach())
        embedding.weight, embedding.num_embeddings = nn.Parameter(rows), len(rows)

    def restore(self, model: TokenModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a cut model with a table of all 50257 rows."""
        name, _ = model.token_table
        return {**weights, name: self.table_of(weights[name])}

    def rows_of(self, table: Tensor) -> Tensor:
        """Return the kept rows of a table [50257, D] and one zero row for all others."""
        kept = self.kept.to(table.device)
        return torch.cat([table[kept], table.new_zeros(1, table.shape[1])])

    def table_of(self, rows: Tensor) -> Tensor:
        """Return the table [50257, D] that ``rows`` [A + 1, D] stand for."""
        return rows[self._number.to(rows.device)]

    def spell(self, numbers: Iterable[int]) -> list[int]:
        """Map numbers of the cut vocabulary to GPT-2 ids; the shared row to the first it has."""
        first = int((self._number == len(self.kept)).nonzero()[0, 0]) if self.others else -1
        ids = [*self.kept.tolist(), first]
        return [ids[number] for number in numbers]
