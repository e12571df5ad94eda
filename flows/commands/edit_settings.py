"""Edit local.yaml and params.yaml as a person would: comments and order stay.

Whatever is written was checked first, so a wrong value changes no file.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from lapvqa import storage
from lapvqa.errors import ConfigError, SourceError
from lapvqa.inventory import layout_of, list_folder
from lapvqa.machine import Machine, load_machine
from lapvqa.params import Params, load_params, read_yaml, validate
from lapvqa.project import Project

Change = tuple[str, Any, Any]
"""Dotted key, old value, new value."""

LINKED = "linked"
"""The project's folder with a link to an archive, ``images``, and one to its ``reports``."""

_TABLES = (".csv", ".tsv", ".parquet")
_INSIDE = "; it lies inside the project: see that git does not take it in"
_HEADER = "# Facts of this machine; git ignores this file. See docs/pipeline.md.\n"


def set_source(project: Project, folder: Path) -> str:
    """Make ``folder`` the archive of this machine; return what was done, in words.

    The folder that params.yaml names needs no override: naming it removes one. A link stays the
    link that was given. Raises SourceError, and keeps nothing, if it is no folder of files, or the
    stage inventory would refuse it: that stage's run takes the former archive's lists away.
    """
    _require_archive(project, folder)
    default = load_params(project.params).inventory.source
    chosen = _as_written(project, folder)
    local = _read(project.local)
    paths = local.get("paths") or {}
    if folder.resolve() == (project.root / default).resolve():
        return remove_source(project) or f"source: {default}, as params.yaml says"
    if paths.get("source") == chosen:
        return f"source: {chosen}, as local.yaml says already"
    _require_layout(project, folder)
    _keep_source(project, local, chosen)
    inside = "" if Path(chosen).is_absolute() or chosen == LINKED else _INSIDE
    return f"source: {chosen}, kept in local.yaml (back: lapvqa run --source {default}){inside}"


def _keep_source(project: Project, local: CommentedMap, chosen: str) -> None:
    paths = local.get("paths")
    if not isinstance(paths, CommentedMap):
        paths = CommentedMap()
    if paths.get("source") == LINKED:
        _forget_table(local)
    paths["source"] = chosen
    local["paths"] = paths
    _write_local(project, local)


def set_reports(project: Project, reports: Path, folder: Path | None) -> str:
    """Read ``reports`` beside the archive in ``folder``, by default the present one.

    Both are linked into the folder ``linked`` of the project, which is the archive from then on; a
    table is the only one that is read. Returns what was done. Raises SourceError, and keeps
    nothing, without reports, or an archive that the stage inventory takes.
    """
    if not (reports.is_file() or (reports.is_dir() and any(reports.iterdir()))):
        raise SourceError(
            f"expected a file or a folder of reports at {reports}, found "
            f"{'an empty folder' if reports.is_dir() else 'nothing'}",
            hint="give a table (CSV, TSV, Parquet) or a folder of reports: --reports FILE",
        )
    linked, is_new = project.root / LINKED, folder is not None
    if folder is None:
        now = load_machine(project).folder("source", load_params(project.params).inventory, project)
        folder = linked / "images" if now == linked else now
    _require_archive(project, folder)
    if is_new:
        _require_layout(project, folder)
    archive = folder.absolute()
    if archive == linked / "images":
        archive = archive.readlink()
    _link(linked / "images", archive)
    shutil.rmtree(linked / "reports", ignore_errors=True)  # a folder of a link, or a link
    if reports.is_dir():
        _link(linked / "reports", reports.absolute())
    else:
        (linked / "reports").unlink(missing_ok=True)
        (linked / "reports").mkdir()
        _link(linked / "reports" / reports.name, reports.absolute())
    local = _read(project.local)
    _keep_source(project, local, LINKED)
    _forget_table(local)
    if reports.is_file() and reports.suffix.lower() in _TABLES:
        local.setdefault("reports", CommentedMap())["table"] = f"reports/{reports.name}"
    _write_local(project, local)
    return f"source: {archive} with the reports of {reports}, linked in {LINKED}/"


def _link(place: Path, target: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    if place.is_symlink():
        place.unlink()
    place.symlink_to(target)


def _forget_table(local: CommentedMap) -> None:
    """Take a table out that was beside another archive."""
    stated = local.get("reports") or {}
    if str(stated.get("table") or "").startswith("reports/"):
        del stated["table"]
    if "reports" in local and not stated:
        del local["reports"]


def _require_archive(project: Project, folder: Path) -> None:
    """Raise SourceError if this cannot be an archive: before anything is kept of it."""
    found = ""
    try:
        if not folder.is_dir():
            found = "a link that leads nowhere" if folder.is_symlink() else "nothing"
            found = "a file" if folder.exists() else found
        elif not any(folder.iterdir()):
            found = "an empty folder"
        elif project.root.resolve().is_relative_to(folder.resolve()):
            found = "the folder of this project, or one around it"
    except OSError as error:
        found = f"what cannot be read ({error.strerror})"
    if found:
        raise SourceError(
            f"expected a folder with DICOM files at {folder}, found {found}",
            hint="give the folder that holds the archive: lapvqa run --source DIR",
        )


def _require_layout(project: Project, folder: Path) -> None:
    """Raise SourceError if no layout knows the folder's images, as the stage inventory does."""
    archive = folder.resolve()
    layout_of(archive, list_folder("source", {"source": archive}), project)


def remove_source(project: Project) -> str:
    """Let params.yaml's archive count again; return what was done, empty if nothing."""
    local = _read(project.local)
    paths = local.get("paths") or {}
    if paths.get("source") is None:
        return ""
    before = paths.pop("source")
    if before == LINKED:
        _forget_table(local)
    if not paths:
        del local["paths"]
    _write_local(project, local)
    default = load_params(project.params).inventory.source
    return f"source: {default}, as params.yaml says ({before} removed from local.yaml)"


def merge_params(project: Project, file: Path) -> list[Change]:
    """Write the values of ``file`` into params.yaml; return the changed ones.

    Only what differs is written, and nothing unless the whole is valid (ConfigError).
    """
    return _set(project, _values_of(file), file.name)


def set_params(project: Project, values: dict[str, Any]) -> list[Change]:
    """Write values, laid out as in params.yaml, into it; return the changed ones.

    Nothing is written unless the whole is valid (ConfigError).
    """
    return _set(project, values, project.params.name)


def merged_params(project: Project, file: Path) -> Params:
    """Return what params.yaml would hold after ``merge_params``; nothing is written."""
    return _merged(project, _values_of(file), file.name)[1]


def with_values(project: Project, values: dict[str, Any]) -> Params:
    """Return what params.yaml would hold after ``set_params``; nothing is written."""
    return _merged(project, values, project.params.name)[1]


def _values_of(file: Path) -> CommentedMap:
    if not file.is_file():
        raise ConfigError(
            f"expected a YAML file with parameters at {file}, found none",
            hint="give a file laid out as params.yaml; it may hold a part of it only",
        )
    return _read(file)


def _merged(
    project: Project, wanted: dict[str, Any], name: str
) -> tuple[str, Params, list[Change]]:
    """Return params.yaml's new text, its values and what changes; ConfigError names ``name``."""
    params = _read(project.params)
    changes = list(_merge(params, wanted, ""))
    text = _dump(params)
    return text, validate(Params, YAML(typ="safe").load(text), name), changes


def _set(project: Project, wanted: dict[str, Any], name: str) -> list[Change]:
    text, _, changes = _merged(project, wanted, name)
    if changes:
        storage.write_bytes(project.params, text.encode())
    return changes


def _as_written(project: Project, folder: Path) -> str:
    """Return the path as it is kept: relative inside the project; links are not followed."""
    # ".." is taken away: the folder beside the project does not lie inside it.
    path, root = Path(os.path.abspath(folder)), project.root.absolute()  # noqa: PTH100
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


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
    validate(Machine, YAML(typ="safe").load(text) or {}, project.local.name)
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
