"""A command writes over nothing but what it wrote itself, and says at once where it may not."""

from __future__ import annotations

import mmap
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from lapvqa.errors import FULL, ConfigError, NotAllowedError, is_there


def require(path: Path, option: str, what: str, is_own: Callable[[Path], bool]) -> None:
    """Raise ConfigError if a file is there that ``is_own`` does not know as ``what``.

    NotAllowedError if its folder is not to be written: before the work, not after it.
    """
    require_writable(path.parent, option)
    if path.is_dir():
        raise ConfigError(
            f"{option}: expected a file to write, found the folder {path}",
            hint="name a file in it",
        )
    if path.exists() and not is_own(path):
        raise ConfigError(
            f"{option}: expected a new file, or {what} to write anew, found another file at {path}",
            hint="name another one, or delete it",
        )


def require_folder(folder: Path, option: str, what: str, mark: str) -> None:
    """Raise ConfigError unless ``folder`` is new, empty, or holds the file ``mark`` of ``what``.

    NotAllowedError if it may not be written.
    """
    require_writable(folder, option)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise ConfigError(
            f"{option}: expected a new folder, or {what}, found another at {folder}",
            hint="name another one",
        )


def require_writable(folder: Path, option: str) -> None:
    """Raise an error unless ``folder``, or the lowest above it that is there, may be written."""
    whole = folder.absolute()
    above = next(one for one in (whole, *whole.parents) if is_there(one))
    try:
        with tempfile.TemporaryDirectory(prefix=".lapvqa-", dir=above):
            pass  # rights, read-only disks and folders of the system are all told by the attempt
    except NotADirectoryError as error:
        raise ConfigError(
            f"{option}: expected a folder at {above}, found a file", hint="name another place"
        ) from error
    except OSError as error:
        if error.errno in FULL:
            raise
        raise NotAllowedError(
            f"{option}: expected a folder to write in, found {above}: {error.strerror}",
            hint="name another place, or grant access to that folder",
        ) from error


def holds(*marks: bytes) -> Callable[[Path], bool]:
    """Return whether a file holds one of ``marks``, which nothing but our own kind does."""

    def look(path: Path) -> bool:
        if not path.is_file() or not path.stat().st_size:
            return path.is_file()  # an empty one is nobody's loss
        with (
            path.open("rb") as file,
            closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as content,
        ):
            return any(content.find(mark) >= 0 for mark in marks)

    return look


def is_zip_with(*names: str) -> Callable[[Path], bool]:
    """Return whether a file is a zip that has all of these members."""

    def look(path: Path) -> bool:
        try:
            with zipfile.ZipFile(path) as archive:
                return set(names) <= set(archive.namelist())
        except (zipfile.BadZipFile, OSError, ValueError):
            return False

    return look
