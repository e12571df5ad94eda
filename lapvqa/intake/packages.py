"""The packages of the extra [pacs], imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from lapvqa.errors import ConfigError


def pynetdicom() -> Any:
    """Return the package; ConfigError says how to install it."""
    return _package("pynetdicom")


def requests() -> Any:
    """Return the package; ConfigError says how to install it."""
    return _package("requests")


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            f"expected the package {name}, found none",
            hint="install the extra [pacs]: `make setup-pacs`, or pip install 'lapvqa[pacs]'",
        ) from None
