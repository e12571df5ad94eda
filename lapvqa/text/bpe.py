"""GPT-2's byte pair encoding, offline: tiktoken built from the rank table beside this file.

``encode`` makes the rows of the stage tokens, ``encoding`` is tiktoken itself.

The table has one line per token, ``base64(bytes) rank``: the 256 bytes, then the 50,000 merges;
rank, merge priority and id are one number. ``<|endoftext|>`` (50256) is special and not in it.
Its origin and licence: gpt2.tiktoken.NOTICE. The file can be made again from the source package
that carries the table:

    pip download --no-deps --no-binary :all: openai-whisper==20250625
    python -m lapvqa.text.bpe openai_whisper-20250625.tar.gz
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import sys
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import tiktoken
from numpy.typing import NDArray
from tiktoken_ext.openai_public import r50k_pat_str as _WORDS  # type: ignore[import-untyped]

from lapvqa.errors import LapvqaError, SourceError
from lapvqa.storage import write_bytes

EOT = 50256
"""``<|endoftext|>``: begins and ends every text."""

VOCABULARY = 50257
RANKS = Path(__file__).with_name("gpt2.tiktoken.gz")
PACKAGED_AS = "whisper/assets/gpt2.tiktoken"
"""Where the source package openai-whisper 20250625 has the table."""

RANKS_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"


@dataclass(frozen=True)
class Encoded:
    """Ids of texts, each between two 50256: ``ids[ends[n]:ends[n + 1]]``.

    ``num_tokens`` counts a text's ids before it was cut, without the two.
    """

    ids: NDArray[np.uint16]
    ends: NDArray[np.int64]
    num_tokens: NDArray[np.int64]
    cut: NDArray[np.bool_]


def encode(texts: Sequence[str], *, max_length: int) -> Encoded:
    """Encode texts as at most ``max_length`` ids each, both 50256 included.

    Raises AssertionError if any row does not spell its text (see ``check``).
    """
    bpe, room = encoding(), max_length - 2
    flat: list[int] = []
    num_tokens = np.zeros(len(texts), np.int64)
    for row, text in enumerate(texts):
        ids = bpe.encode_ordinary(text)
        num_tokens[row] = len(ids)
        flat += [EOT, *ids[:room], EOT]
    lengths = np.minimum(num_tokens, room) + 2
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    encoded = Encoded(np.array(flat, np.uint16), ends, num_tokens, num_tokens > room)
    check(encoded, texts)
    return encoded


def check(encoded: Encoded, texts: Sequence[str]) -> None:
    """Raise AssertionError unless every row spells its text back, or the beginning if it was cut.

    The error names the row, never its text.
    """
    spell, all_ids = encoding().decode_bytes, encoded.ids.tolist()
    for row, text in enumerate(texts):
        first, *ids, last = all_ids[encoded.ends[row] : encoded.ends[row + 1]]
        spelt, whole = spell(ids), text.encode()
        good = whole.startswith(spelt) and (len(spelt) < len(whole)) == encoded.cut[row]
        if not good or EOT in ids or (first, last) != (EOT, EOT):
            raise AssertionError(f"the ids of text {row} of {len(texts)} do not spell it")


@cache
def encoding() -> tiktoken.Encoding:
    """Return GPT-2's encoding; reads one packaged file and never the network.

    Raises LapvqaError if the packaged table is missing or its sha256 is not the published one.
    """
    return tiktoken.Encoding(
        "gpt2",
        explicit_n_vocab=VOCABULARY,
        pat_str=_WORDS,
        mergeable_ranks=read_ranks(RANKS),
        special_tokens={"<|endoftext|>": EOT},
    )


def read_ranks(packed: Path) -> dict[bytes, int]:
    """Read a gzipped rank table as token bytes -> id; LapvqaError if missing or not GPT-2's."""
    try:
        table = gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise LapvqaError(
            f"expected the GPT-2 rank table at lapvqa/text/{packed.name}, "
            f"could not read it ({type(error).__name__})",
            hint="restore it (git checkout lapvqa/text) or install lapvqa again",
        ) from error
    check_ranks(table, name=packed.name)
    return {
        base64.b64decode(token): int(rank)
        for token, rank in (line.split() for line in table.splitlines())
    }


def check_ranks(table: bytes, *, name: str) -> None:
    """Raise LapvqaError unless ``table`` is GPT-2's rank table, byte for byte."""
    sha256 = hashlib.sha256(table).hexdigest()
    if sha256 != RANKS_SHA256:
        raise LapvqaError(
            f"{name}: expected the GPT-2 rank table, sha256 {RANKS_SHA256[:16]}..., "
            f"found {sha256[:16]}...",
            hint="other ids would fit no published model; restore the file from the release",
        )


def pack_ranks(sdist: Path, packed: Path = RANKS) -> None:
    """Write the rank table of the source package ``sdist`` to ``packed``, gzipped, undated.

    Raises SourceError if the table is not in there, LapvqaError if its sha256 differs.
    """
    with tarfile.open(sdist) as archive:
        members = [name for name in archive.getnames() if name.endswith(PACKAGED_AS)]
        handle = archive.extractfile(members[0]) if members else None
        if handle is None:
            raise SourceError(
                f"expected {PACKAGED_AS} in {sdist.name}, found none",
                hint="pass the source package openai-whisper 20250625",
            )
        table = handle.read()
    check_ranks(table, name=PACKAGED_AS)
    write_bytes(packed, gzip.compress(table, 9, mtime=0))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m lapvqa.text.bpe openai_whisper-20250625.tar.gz")
    try:
        pack_ranks(Path(sys.argv[1]))
    except LapvqaError as error:
        raise SystemExit(str(error)) from error
