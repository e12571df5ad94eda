"""Edit local.yaml and params.yaml as a person would: comments and order stay.

Whatever is written was checked first, so a wrong value changes no file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from lapvqa import storage
from lapvqa.errors import ConfigError, SourceError
from lapvqa.machine import Machine
from lapvqa.params import Params, load_params, read_yaml, validate
from lapvqa.project import Project

Change = tuple[str, Any, Any]
"""Dotted key, old value, new value."""

_HEADER = "# Facts of this machine; git ignores this file. See docs/pipeline.md.\n"


def set_source(project: Project, folder: Path) -> str:
    """Make ``folder`` the archive of this machine; return what was done, in words.

    The folder that params.yaml names needs no override: naming it removes one.
    Raises SourceError if there is no such folder.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise SourceError(
            f"expected a folder with DICOM files at {folder}, found {found}",
            hint="give the folder that holds the archive: lapvqa run --source DIR",
        )
    default = load_params(project.params).inventory.source
    chosen = _as_written(project, folder.resolve())
    local = _read(project.local)
    paths = local.get("paths") or {}
    if folder.resolve() == (project.root / default).resolve():
        return remove_source(project) or f"source: {default}, as params.yaml says"
    if paths.get("source") == chosen:
        return f"source: {chosen}, as local.yaml says already"
    if not isinstance(paths, CommentedMap):
        paths = CommentedMap()
    paths["source"] = chosen
    local["paths"] = paths
    _write_local(project, local)
    return f"source: {chosen}, kept in local.yaml (back: lapvqa run --source {default})"


def remove_source(project: Project) -> str:
    """Let params.yaml's archive count again; return what was done, empty if nothing."""
    local = _read(project.local)
    paths = local.get("paths") or {}
    if paths.get("source") is None:
        return ""
    before = paths.pop("source")
    if not paths:
        del local["paths"]
    _write_local(project, local)
    default = load_params(project.params).inventory.source
    return f"source: {default}, as params.yaml says ({before} removed from local.yaml)"


def merge_params(project: Project, file: Path) -> list[Change]:
    """Write the values of ``file`` into params.yaml; return the changed ones.

    Only what differs is written, and nothing unless the whole is valid (ConfigError).
    """
    text, _, changes = _merged(project, file)
    if changes:
        storage.write_bytes(project.params, text.encode())
    return changes


def set_params(project: Project, values: dict[str, Any]) -> list[Change]:
    """Write values, laid out as in params.yaml, into it; return the changed ones.

    Nothing is written unless the whole is valid (ConfigError).
    """
    params = _read(project.params)
    changes = list(_merge(params, values, ""))
    text = _dump(params)
    validate(Params, YAML(typ="safe", pure=True).load(text), project.params.name)
    if changes:
        storage.write_bytes(project.params, text.encode())
    return changes


def merged_params(project: Project, file: Path) -> Params:
    """Return what params.yaml would hold after ``merge_params``; nothing is written."""
    return _merged(project, file)[1]


def _merged(project: Project, file: Path) -> tuple[str, Params, list[Change]]:
    if not file.is_file():
        raise ConfigError(
            f"expected a YAML file with parameters at {file}, found none",
            hint="give a file laid out as params.yaml; it may hold a part of it only",
        )
    read_yaml(file)  # says what is wrong with it
    params, wanted = _read(project.params), _read(file)
    changes = list(_merge(params, wanted, ""))
    text = _dump(params)
    return text, validate(Params, YAML(typ="safe", pure=True).load(text), file.name), changes


def _as_written(project: Project, folder: Path) -> str:
    inside = folder.is_relative_to(project.root.resolve())
    return os.path.relpath(folder, project.root.resolve()) if inside else str(folder)


def _merge(params: dict[Any, Any], wanted: dict[Any, Any], prefix: str) -> Iterator[Change]:
    for name, value in wanted.items():
        key = f"{prefix}{name}"
        before = params.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            yield from _merge(before, value, f"{key}.")
        elif name not in params or (before, type(before) is bool) != (value, type(value) is bool):
            params[name] = value
            yield key, before, value


def _write_local(project: Project, local: CommentedMap) -> None:
    text = _dump(local) if local else ""
    if not project.local.exists():
        text = _HEADER + text
    validate(Machine, YAML(typ="safe", pure=True).load(text) or {}, project.local.name)
    storage.write_bytes(project.local, text.encode())


def _read(path: Path) -> CommentedMap:
    if not path.exists():
        return CommentedMap()
    read_yaml(path)
    return _round_trip().load(path.read_text(encoding="utf-8")) or CommentedMap()


def _dump(value: CommentedMap) -> str:
    text = io.StringIO()
    _round_trip().dump(value, text)
    return text.getvalue()


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml
