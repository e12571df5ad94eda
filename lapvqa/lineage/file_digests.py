"""Digests of a file that say not only whether it changed, but where.

The whole file's sha256 is the proof. Digests of at most 256 blocks find the changed bytes.
"""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO

_BLOCKS = 256
_SMALLEST_BLOCK = 4096
_SHOWN = 16
"""Hex digits of a block's digest: they find a change, and prove nothing."""


def describe(file: BinaryIO, size: int) -> dict[str, Any]:
    """Return {"sha256", "bytes", "block", "blocks"} of an open file of ``size`` bytes."""
    block = _SMALLEST_BLOCK
    while block * _BLOCKS < size:
        block *= 2
    whole, digests = _digests(file, block)
    return {"sha256": whole, "bytes": size, "block": block, "blocks": digests}


def fault(file: BinaryIO, size: int, described: dict[str, Any]) -> str | None:
    """Return what of an open file differs from its description, by byte range; None if nothing."""
    block = described["block"]
    whole, digests = _digests(file, block)
    if whole == described["sha256"]:
        return None
    if size != described["bytes"]:
        return f"expected {described['bytes']} bytes, found {size}"
    pairs = enumerate(zip(digests, described["blocks"], strict=False))
    places = [at for at, (one, other) in pairs if one != other]
    if not places:
        return f"expected sha256 {described['sha256']}, found {whole}"
    end = min((places[-1] + 1) * block, size)
    return f"bytes {places[0] * block} to {end - 1} were changed"


def _digests(file: BinaryIO, block: int) -> tuple[str, list[str]]:
    whole, digests = hashlib.sha256(), []
    while piece := file.read(block):
        whole.update(piece)
        digests.append(hashlib.sha256(piece).hexdigest()[:_SHOWN])
    return whole.hexdigest(), digests
