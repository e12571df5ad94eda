"""Names of files as tables hold them, and back; light to import.

A file's name is bytes, a table's text is UTF-8. Bytes that are none stand as ``\\xNN`` in the text,
and so does the backslash of a name that holds ``\\x`` itself: so every text gives its name back.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

NO_FILE = -1
"""In place of the modification time of what is listed and is a pipe, a socket or a device."""
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def shown(name: str) -> str:
    """Return a name (as ``os`` gives it) as UTF-8 text, from which ``place`` finds it again."""
    if name.isascii() and "\\x" not in name:
        return name
    return os.fsencode(name).replace(b"\\x", b"\\x5cx").decode("utf-8", "backslashreplace")


def place(folder: Path | str, path: str) -> Path:
    """Return the file in ``folder`` whose path a table holds as ``path``."""
    return Path(folder, own_name(path))


def own_name(path: str) -> str:
    """Return the path, as ``os`` takes it, that a table holds as ``path``."""
    if "\\x" not in path:
        return path
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), path.encode())
    return os.fsdecode(raw)


def is_hidden(path: str) -> bool:
    """Tell whether the file or a folder of it has a name that begins with a dot."""
    return "/." in path or (path.startswith(".") and not path.startswith("../"))
