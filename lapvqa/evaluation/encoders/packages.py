"""Packages that only some encoders need: imported when asked for, with an error that says how."""

from __future__ import annotations

import importlib
from types import ModuleType

from lapvqa.errors import EXIT_USER, LapvqaError
from lapvqa.evaluation.encoders.without_torchvision import absent_torchvision


class MissingPackageError(LapvqaError):
    """An optional package is not installed, or cannot be imported."""

    exit_code = EXIT_USER


_INSTALL = {
    "transformers": "pip install 'lapvqa[encoders]'",
    # With its needs, timm would bring torchvision, which moves torch to another version.
    "timm": "pip install --no-deps timm",
}


def optional(name: str, *, needed_for: str) -> ModuleType:
    """Import ``transformers`` or ``timm``; MissingPackageError says how to install it."""
    try:
        if name == "timm":
            with absent_torchvision():
                return importlib.import_module(name)
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"{needed_for} needs the package {name}: {error}",
            hint=f"install it: {_INSTALL[name]} (`make setup-dev` has the tested versions)",
        ) from error
