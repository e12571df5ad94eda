"""What `make setup` leaves out, because few need it: the packages of each extra, and who asks.

An extra NAME is installed by `make setup-NAME`; README.md has this table for people.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from lapvqa.errors import MissingPackageError

EXTRAS = {
    "encoders": ("transformers", "timm"),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "lineage": ("openlineage", "prov", "rocrate"),
    "pacs": ("pynetdicom", "requests"),
    "plots": ("vl_convert",),
    "dask": ("distributed", "prefect_dask"),
    "served": ("psycopg", "dvc_s3", "boto3"),
}
"""Extra -> the top modules that it brings."""


def optional(module: str, *, needed_for: str, instead: str = "") -> Any:
    """Import a module of an extra; MissingPackageError says which extra it is, by its target.

    ``instead``: what can be done without it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        raise _missing([package], needed_for, instead, why=str(error)) from error


def require(extra: str, *, needed_for: str, instead: str = "") -> None:
    """Raise MissingPackageError if a package of an extra is not installed; imports none."""
    absent = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if absent:
        raise _missing(absent, needed_for, instead, why="not installed")


def _missing(
    packages: list[str], needed_for: str, instead: str, *, why: str
) -> MissingPackageError:
    extra = next((extra for extra, brings in EXTRAS.items() if {*packages} & {*brings}), "")
    names = f"package{'s' * (len(packages) > 1)} {', '.join(packages)}"
    hint = f"`make setup-{extra}` installs it" if extra else f"install the {names}"
    hint += f"; or {instead}" if instead else ""
    return MissingPackageError(f"{needed_for} needs the {names}: {why}", hint=hint)
