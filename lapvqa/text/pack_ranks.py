"""Make gpt2.tiktoken.gz, the packaged GPT-2 rank table, from the package that carries it.

    pip download --no-deps --no-binary :all: openai-whisper==20250625
    python -m lapvqa.text.pack_ranks openai_whisper-20250625.tar.gz

The table is ``whisper/assets/gpt2.tiktoken`` of that source package (MIT licence, see
gpt2.tiktoken.NOTICE), byte for byte; it is refused unless its sha256 is the published one.
Nothing of LAPVQA runs this: it documents where the file comes from and lets you make it again.
"""

from __future__ import annotations

import gzip
import sys
import tarfile
from pathlib import Path

from lapvqa.errors import LapvqaError, SourceError
from lapvqa.storage import write_bytes
from lapvqa.text.bpe import RANKS, check_ranks

MEMBER = "whisper/assets/gpt2.tiktoken"


def pack(sdist: Path, packed: Path = RANKS) -> None:
    """Write the rank table found in ``sdist`` to ``packed``, gzipped with no time stamp.

    Raises SourceError if the table is not in there, LapvqaError if its sha256 differs.
    """
    with tarfile.open(sdist) as archive:
        members = [name for name in archive.getnames() if name.endswith(MEMBER)]
        handle = archive.extractfile(members[0]) if members else None
        if handle is None:
            raise SourceError(
                f"expected {MEMBER} in {sdist.name}, found none",
                hint="pass the source package openai-whisper 20250625",
            )
        table = handle.read()
    check_ranks(table, name=MEMBER)
    write_bytes(packed, gzip.compress(table, 9, mtime=0))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m lapvqa.text.pack_ranks openai_whisper-20250625.tar.gz")
    try:
        pack(Path(sys.argv[1]))
    except LapvqaError as error:
        raise SystemExit(str(error)) from error
