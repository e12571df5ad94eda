"""The packages of the extra [lineage], imported when an export needs them."""

from __future__ import annotations

import importlib
from typing import Any

from lapvqa.errors import EXIT_USER, LapvqaError


class MissingPackageError(LapvqaError):
    """An optional package is not installed, or cannot be imported."""

    exit_code = EXIT_USER


def optional(module: str, *, needed_for: str) -> Any:
    """Import a module of an optional package; MissingPackageError says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{needed_for} needs the package {error.name or module}, which is not installed",
            hint="install the extra [lineage]: `make setup-lineage`, or "
            "pip install 'lapvqa[lineage]'",
        ) from error
