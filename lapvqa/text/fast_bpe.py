"""GPT-2's ids of many texts at once: each distinct word is encoded once, by tiktoken.

GPT-2 cuts a text into words before it merges bytes, so a word's ids depend on the word alone.
``bpe_kernels`` cuts ASCII texts and looks the words up; unknown ones go to tiktoken. A text with
any other character goes to tiktoken whole: the cuts there need Unicode's tables. The ids are
tiktoken's in any case (``bpe.encoding()``, the reference), and ``check`` spells every row back.

Memory: about 100 bytes per distinct word, and 13 bytes per character of the texts of one call.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
import pyarrow as pa
import tiktoken
from numpy.typing import NDArray

from lapvqa.text import bpe_kernels as kernels
from lapvqa.text.bpe import EOT, RANKS, encoding, read_ranks

_LINE_END = 198
_WHITE = np.frombuffer(b"\t\n\v\f\r ", np.uint8)
_FIRST_WORDS, _FIRST_SPELLING = 1 << 16, 1 << 20

_T = TypeVar("_T", bound=np.generic)
Ends = NDArray[np.int64]


@dataclass(frozen=True)
class Encoded:
    """Ids of texts, each between two 50256: ``ids[ends[n]:ends[n + 1]]``.

    ``num_tokens`` counts a text's ids before it was cut, without the two.
    """

    ids: NDArray[np.uint16]
    ends: Ends
    num_tokens: Ends
    cut: NDArray[np.bool_]


class FastBpe:
    """Encode texts; keeps every word it has met, for the next call."""

    def __init__(self) -> None:
        self._reference = encoding()
        self._num_words = 0
        self._slots = np.full(2 * _FIRST_WORDS, -1, np.int32)
        self._hashes: NDArray[np.uint64] = np.zeros(_FIRST_WORDS, np.uint64)
        self._spelling: NDArray[np.uint8] = np.zeros(_FIRST_SPELLING, np.uint8)
        self._spelling_ends: Ends = np.zeros(_FIRST_WORDS + 1, np.int64)
        self._tokens = np.empty(0, np.uint16)
        self._token_ends = np.zeros(1, np.int64)

    def encode(self, texts: pa.Array, *, max_length: int) -> Encoded:
        """Encode a string array as at most ``max_length`` ids each, both 50256 included.

        Raises AssertionError if any row does not spell its text (see ``check``).
        """
        text, ends = _bytes(texts)
        ascii_rows = np.empty(len(texts), np.bool_)
        kernels.is_ascii(text, ends, ascii_rows)
        pieces, piece_ends = self._number(text, ends, ascii_rows)
        self._learn()
        counts = np.zeros(len(texts), np.int64)
        kernels.count_ids(pieces, piece_ends, self._token_ends, counts)
        others = {
            int(row): self._reference.encode_ordinary(texts[row].as_py())
            for row in np.flatnonzero(~ascii_rows)
        }
        for row, ids in others.items():
            counts[row] = len(ids)

        id_ends = _ends(np.minimum(counts, max_length - 2) + 2)
        flat = np.full(id_ends[-1], EOT, np.uint16)
        kernels.write_ids(pieces, piece_ends, self._tokens, self._token_ends, flat, id_ends)
        for row, ids in others.items():
            flat[id_ends[row] + 1 : id_ends[row + 1] - 1] = ids[: max_length - 2]
        encoded = Encoded(flat, id_ends, counts, counts > max_length - 2)
        check(encoded, texts)
        return encoded

    def _number(
        self, text: NDArray[np.uint8], ends: Ends, rows: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], Ends]:
        """Return the numbers of the words of the ASCII texts; the table grows where it must."""
        pieces = np.empty(len(text), np.int32)
        piece_ends = np.zeros(len(rows) + 1, np.int64)
        row = 0
        while True:
            row, self._num_words = kernels.number_words(
                text, ends, rows, row, self._slots, self._hashes, self._spelling,
                self._spelling_ends, self._num_words, pieces, piece_ends,
            )  # fmt: skip
            if row == len(rows):
                return pieces, piece_ends
            self._grow(int(ends[row + 1] - ends[row]))

    def _grow(self, room: int) -> None:
        """Double the table, or more: until it holds ``room`` more words and letters."""
        words, letters = len(self._hashes), len(self._spelling)
        while words < self._num_words + room:
            words *= 2
        while letters < self._spelling_ends[self._num_words] + room:
            letters *= 2
        self._hashes = _extended(self._hashes, words)
        self._spelling = _extended(self._spelling, letters)
        self._spelling_ends = _extended(self._spelling_ends, words + 1)
        self._slots = np.full(2 * words, -1, np.int32)
        kernels.fill_slots(self._slots, self._hashes, self._num_words)

    def _learn(self) -> None:
        """Have tiktoken encode the words that are new since the last call."""
        known = len(self._token_ends) - 1
        ends = self._spelling_ends[known : self._num_words + 1]
        ids, lengths = _encode_words(
            self._spelling[ends[0] : ends[-1]], np.diff(ends), self._reference
        )
        self._tokens = np.concatenate([self._tokens, ids])
        self._token_ends = np.concatenate(
            [self._token_ends, self._token_ends[-1] + np.cumsum(lengths)]
        )


def _encode_words(
    letters: NDArray[np.uint8], lengths: Ends, reference: tiktoken.Encoding
) -> tuple[NDArray[np.uint16], Ends]:
    """Return the ids of words given one after the other, and how many each has.

    They go to tiktoken as the lines of one text: between two words a line end stays a word of its
    own. Words of white space, which would merge with it, are encoded one by one.
    """
    ends = np.cumsum(lengths)
    is_white = np.isin(letters[ends - 1], _WHITE)
    in_line = np.repeat(~is_white, lengths)
    lines = np.insert(letters[in_line], np.cumsum(lengths[~is_white]), ord("\n"))
    ids = reference.encode_to_numpy(lines.tobytes().decode("ascii"))
    line_ends = np.flatnonzero(ids == _LINE_END)
    num_ids = np.zeros(len(lengths), np.int64)
    num_ids[~is_white] = np.diff(line_ends, prepend=-1) - 1
    ids = np.delete(ids, line_ends).astype(np.uint16)
    places = np.cumsum(num_ids)
    for word in np.flatnonzero(is_white)[::-1]:
        white = letters[ends[word] - lengths[word] : ends[word]].tobytes().decode("ascii")
        own = reference.encode_ordinary(white)
        ids = np.insert(ids, places[word], own)
        num_ids[word] = len(own)
    return ids, num_ids


def check(encoded: Encoded, texts: pa.Array) -> None:
    """Raise AssertionError unless every row spells its text back, or the beginning if it was cut.

    The error names the row, never its text.
    """
    row = kernels.first_wrong(
        encoded.ids, encoded.ends, encoded.cut, *_bytes(texts), *_token_spelling()
    )
    if row >= 0:
        raise AssertionError(f"the ids of text {row} of {len(texts)} do not spell it")


@cache
def _token_spelling() -> tuple[NDArray[np.uint8], Ends]:
    """Return the bytes of all ordinary tokens in order of id, and their ends."""
    ranks = read_ranks(RANKS)
    by_id = sorted(ranks, key=ranks.__getitem__)
    return np.frombuffer(b"".join(by_id), np.uint8), _ends(map(len, by_id))


def _bytes(texts: pa.Array) -> tuple[NDArray[np.uint8], Ends]:
    """Return the UTF-8 bytes of a string array without nulls, and the texts' ends."""
    if not len(texts):
        return np.frombuffer(b"", np.uint8), _ends([])
    large = texts.cast(pa.large_string())
    _, offsets, data = large.buffers()
    ends = np.frombuffer(offsets, np.int64)[large.offset : large.offset + len(large) + 1]
    return np.frombuffer(data or b"", np.uint8), ends


def _ends(lengths: Iterable[int] | Ends) -> Ends:
    counted = np.fromiter(lengths, np.int64)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counted)])


def _extended(values: NDArray[_T], length: int) -> NDArray[_T]:
    longer = np.zeros(length, values.dtype)
    longer[: len(values)] = values
    return longer
