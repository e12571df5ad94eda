"""Errors, named by what the reader can do about them.

A message says what was expected, what was found and where; ``hint`` says what to do.
No error text ever carries a patient's identity.
"""

from __future__ import annotations

import difflib
import errno
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IS_FULL = "disk is full"

EXIT_USER = 2
EXIT_BAD_DATA = 3
EXIT_BUSY = 4
EXIT_FAULT = 70
EXIT_INTERRUPTED = 130


class LapvqaError(Exception):
    """Base of all errors that a user can act on.

    ``exit_code`` is what a process that ends by this error returns.
    """

    exit_code = EXIT_FAULT

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  what to do: {self.hint}" if self.hint else self.message


class ConfigError(LapvqaError):
    """A value in params.yaml or local.yaml is unknown, ill-typed or out of range."""

    exit_code = EXIT_USER


def no_such(what: str, name: str, known: Iterable[str], *, shown: str = "") -> ConfigError:
    """Return the error for a name that is none of those known: the nearest, else all of them.

    ``shown``: the name as the error may repeat it, by default quoted.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names) or 'none'}"
    return ConfigError(f"there is no {what} {shown or repr(name)}", hint=hint)


class SourceError(LapvqaError):
    """The archive or a dataset is missing, empty or of an unknown layout."""

    exit_code = EXIT_USER


def is_there(path: Path) -> bool:
    """Tell whether something is at a path as somebody gave it; no where one may not look."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises there


def nothing_at(path: Path, expected: str) -> SourceError:
    """Return the error for a path as somebody gave it, at which nothing is."""
    found, hint = "nothing", "check the path"
    try:
        if stat.S_ISLNK(path.lstat().st_mode):
            found, hint = "a link to nothing", "mend the link"
    except PermissionError as error:
        found, hint = f"a folder above it that is closed ({error.strerror})", "grant access"
    except OSError:
        pass
    return SourceError(f"expected {expected} at {path}, found {found}", hint=hint)


class OtherArchiveError(SourceError):
    """A dataset refers to images of which none is stored: it belongs to another archive."""


class MissingArtifactError(LapvqaError):
    """A file that an earlier stage writes is not there."""

    exit_code = EXIT_USER


class MissingPackageError(LapvqaError):
    """A package that few need is not installed, or cannot be imported: ``lapvqa.extras``."""

    exit_code = EXIT_USER


class RejectBudgetError(LapvqaError):
    """More input was rejected than params.yaml allows."""

    exit_code = EXIT_BAD_DATA


class FilesGoneError(LapvqaError):
    """More of an input folder's files are gone than params.yaml allows."""

    exit_code = EXIT_BAD_DATA


class SplitLeakError(LapvqaError):
    """One patient stands in more than one split."""

    exit_code = EXIT_BAD_DATA


class SchemaError(LapvqaError):
    """An artefact's columns differ from its schema."""

    exit_code = EXIT_BAD_DATA


class CheckpointError(LapvqaError):
    """A weights file does not fit the model, or is damaged."""

    exit_code = EXIT_BAD_DATA


class TrainingError(LapvqaError):
    """Training cannot go on with these parameters: the loss is no longer a number."""

    exit_code = EXIT_USER


class BusyError(LapvqaError):
    """Another process holds the lock."""

    exit_code = EXIT_BUSY


class StorageFullError(LapvqaError):
    """The disk or a quota is full."""

    exit_code = EXIT_USER


class NotAllowedError(LapvqaError):
    """The system refuses to read or write a place: other rights, another owner."""

    exit_code = EXIT_USER


class DicomError(LapvqaError):
    """One file cannot become an image; it goes to rejects.parquet under ``reason``.

    ``exception`` is the type of what a parser or decoder raised, never its text.
    """

    exit_code = EXIT_BAD_DATA

    def __init__(
        self, reason: str, message: str, *, hint: str = "", exception: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.exception = exception


def full_disk(said: str) -> StorageFullError | None:
    """Return what a program's own words say of a disk that takes no more; None for all else."""
    if any(words in said for words in (_IS_FULL, *map(os.strerror, FULL))):
        return StorageFullError(
            "no space left on the disk (or within its quota)",
            hint="free disk space, then run again; nothing was lost",
        )
    if "disk I/O error" in said:  # what SQLite makes of a quota, of a limit, and of a broken disk
        return StorageFullError(
            "a database could not be written (disk I/O error)",
            hint="is a quota or a limit of file sizes reached? If not, look after the disk; then "
            "run again",
        )
    return None


def forbidden(said: str, root: Path) -> NotAllowedError | None:
    """Return what DVC's own lines say of a place it may not read or write; None for all else."""
    for line in said.splitlines():
        for number in FORBIDDEN:
            why = os.strerror(number)
            _, is_there, rest = line.partition(f"[Errno {number}] {why}")
            if is_there and line.startswith("ERROR:"):
                place = rest.partition("'")[2].partition("'")[0]
                return _not_allowed(_place(root / place, root), why)
    return None


def of_the_machine(error: BaseException, root: Path | None) -> LapvqaError | None:
    """Return what the machine has refused, if ``error`` stems from that; None for all else.

    Servers and stores wrap what the system said, so the chain of causes is walked. ``root``: of
    the project; a place outside it is not named, for a whole path may name a patient.
    """
    for cause in _causes(error):
        number = cause.errno if isinstance(cause, OSError) else None
        said = str(cause) if isinstance(cause, sqlite3.Error) else ""
        if full := full_disk(said if number not in FULL else _IS_FULL):
            return full
        if isinstance(cause, OSError) and number in FORBIDDEN:
            return _not_allowed(_place(cause.filename, root), str(cause.strerror))
        if "readonly database" in said or "unable to open database" in said:
            return _not_allowed("a database in .lapvqa/ of the project", said)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _not_allowed(place: str, found: str) -> NotAllowedError:
    return NotAllowedError(
        f"expected to read or write {place}, found: {found}",
        hint="grant access, or run as the user whose project it is; questions (lineage, card, "
        "status, plan) write nothing",
    )


def _place(path: object, root: Path | None) -> str:
    """Return the folder of the project that a path lies in."""
    try:
        inside = Path(str(path)).resolve().relative_to((root or Path("/nowhere")).resolve())
    except ValueError:
        return "a file or folder outside the project"
    return f"{inside.parts[0]}/ of the project" if inside.parts[1:] else "the project's folder"
