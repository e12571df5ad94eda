"""dvc.yaml expanded and dvc.lock read, without importing DVC (whose import alone takes 0.5 s).

Covers the part of DVC's language that dvc.yaml here uses: ``foreach``, ``matrix`` and ``${...}``
over params.yaml. Anything else raises UnsupportedStagefileError, and the caller asks DVC.
Reference: dvc.org/doc/user-guide/project-structure/dvcyaml-files.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from lapvqa.errors import ConfigError
from lapvqa.project import Project

_TEMPLATE = re.compile(r"\$\{\s*([^}\s]+)\s*\}")
_KNOWN_KEYS = {
    "cmd",
    "deps",
    "outs",
    "metrics",
    "plots",
    "params",
    "always_changed",
    "desc",
    "meta",
}
_PARAMS_FILE = "params.yaml"


class UnsupportedStagefileError(ConfigError):
    """dvc.yaml uses a part of DVC's language that this reader does not know."""


class CutLockError(ConfigError):
    """dvc.lock is not whole."""


@dataclass(frozen=True)
class Stage:
    """One stage as dvc.yaml declares it, templates filled in; paths relative to the root."""

    name: str
    cmd: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    params: tuple[str, ...]
    """Keys of params.yaml, dotted."""
    always_changed: bool


@dataclass(frozen=True)
class LockedStage:
    """One stage as dvc.lock records its last run."""

    name: str
    cmd: str
    deps: dict[str, str]
    """Path -> md5 (``.dir`` for folders)."""
    outs: dict[str, str]
    params: dict[str, Any]
    """Dotted key of params.yaml -> value."""


def declared(project: Project) -> dict[str, Stage]:
    """Return dvc.yaml's stages by name, upstream first.

    Raises ConfigError where the file is malformed, UnsupportedStagefileError where it uses what
    this reader does not know.
    """
    from lapvqa.params import load_params, read_yaml

    params = read_yaml(project.params)
    definitions = read_yaml(project.dvc_yaml).get("stages") or {}
    stages = {}
    try:
        for name, definition in definitions.items():
            for full_name, body, context in _expand(name, definition, params):
                stages[full_name] = _stage(full_name, _fill(body, context))
    except ConfigError:
        if not params:
            load_params(project.params)  # says that it is empty
        raise
    return _upstream_first(stages)


def locked(project: Project) -> dict[str, LockedStage]:
    """Return dvc.lock's stages by name; empty if nothing has run yet.

    Raises CutLockError for a file that ends in the middle.
    """
    from lapvqa.params import read_yaml

    if not project.dvc_lock.exists():
        return {}
    try:
        _require_end(project)
        stages = read_yaml(project.dvc_lock).get("stages") or {}
        return {name: _locked_stage(name, body) for name, body in stages.items()}
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CutLockError(
            "dvc.lock is cut off; expected what DVC writes of each stage",
            hint="`lapvqa run` mends it: a run was killed while DVC wrote the file",
        ) from error


def upstream(stages: dict[str, Stage], name: str) -> list[str]:
    """Return the stages whose outputs ``name`` reads directly."""
    return [
        other
        for other in stages
        if other != name and any_overlap(stages[other].outs, stages[name].deps)
    ]


def overlap(path: str, other: str) -> bool:
    """Tell whether two paths are the same or one lies within the other."""
    return path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/")


def any_overlap(paths: Iterable[str], others: Iterable[str]) -> bool:
    """Tell whether one of ``paths`` and one of ``others`` ``overlap``, without comparing all pairs.

    The same ``others`` are quick to ask again.
    """
    paths, others = tuple(paths), tuple(others)
    known = frozenset(others)
    return not _with_folders(others).isdisjoint(paths) or any(
        not known.isdisjoint(_with_folders((path,))) for path in paths
    )


def lookup(values: dict[str, Any], dotted: str) -> Any:
    """Return the value at a dotted key; KeyError if it is absent."""
    value: Any = values
    for part in dotted.split("."):
        if not isinstance(value, dict) or part not in value:
            raise KeyError(dotted)
        value = value[part]
    return value


@cache
def _with_folders(paths: tuple[str, ...]) -> frozenset[str]:
    """Return the paths and all folders above them."""
    parts = (path.split("/") for path in paths)
    return frozenset("/".join(one[: n + 1]) for one in parts for n in range(len(one)))


def _upstream_first(stages: dict[str, Stage]) -> dict[str, Stage]:
    """Return the stages in DVC's order: each, as dvc.yaml names it, after all above it."""
    ordered: dict[str, Stage] = {}

    def visit(name: str, *below: str) -> None:
        if name in below:
            circle = sorted(below[: below.index(name) + 1])
            raise ConfigError(
                f"dvc.yaml: stages depend on each other in a circle: {', '.join(circle)}",
                hint="remove one of the dependencies between them",
            )
        if name not in ordered:
            for other in upstream(stages, name):
                visit(other, name, *below)
            ordered[name] = stages[name]

    for name in stages:
        visit(name)
    return ordered


def _expand(
    name: str, definition: dict[str, Any], params: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    if "foreach" in definition:
        items = _fill(definition["foreach"], params)
        pairs = items.items() if isinstance(items, dict) else ((str(i), i) for i in items)
        for key, item in pairs:
            yield f"{name}@{key}", definition["do"], {**params, "key": key, "item": item}
    elif "matrix" in definition:
        axes = _fill(definition["matrix"], params)
        body = {key: value for key, value in definition.items() if key != "matrix"}
        for combination in itertools.product(*axes.values()):
            key = "-".join(str(value) for value in combination)
            item = dict(zip(axes, combination, strict=True))
            yield f"{name}@{key}", body, {**params, "key": key, "item": item}
    else:
        yield name, definition, params


def _fill(value: Any, context: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {_fill(key, context): _fill(item, context) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, context) for item in value]
    if not isinstance(value, str):
        return value
    whole = _TEMPLATE.fullmatch(value)
    if whole:
        return _value(whole[1], context)
    return _TEMPLATE.sub(lambda match: str(_value(match[1], context)), value)


def _value(dotted: str, context: dict[str, Any]) -> Any:
    try:
        return lookup(context, dotted)
    except KeyError:
        raise ConfigError(
            f"dvc.yaml: ${{{dotted}}} is not in params.yaml", hint="add it, or correct the name"
        ) from None


def _stage(name: str, body: dict[str, Any]) -> Stage:
    unknown = set(body) - _KNOWN_KEYS
    if unknown or not isinstance(body.get("cmd"), str):
        raise UnsupportedStagefileError(
            f"dvc.yaml: stage {name} uses {', '.join(sorted(unknown)) or 'a cmd that is no text'}",
            hint="`dvc status` and `dvc repro` read it; `lapvqa plan` asks DVC",
        )
    outs = [*body.get("outs", []), *body.get("metrics", []), *body.get("plots", [])]
    return Stage(
        name=name,
        cmd=body["cmd"],
        deps=tuple(_path(item) for item in body.get("deps", [])),
        outs=tuple(_path(item) for item in outs),
        params=tuple(_param(name, item) for item in body.get("params", [])),
        always_changed=bool(body.get("always_changed", False)),
    )


def _path(item: str | dict[str, Any]) -> str:
    return item if isinstance(item, str) else next(iter(item))


def _param(name: str, item: Any) -> str:
    if not isinstance(item, str):
        raise UnsupportedStagefileError(
            f"dvc.yaml: stage {name} takes parameters from another file than {_PARAMS_FILE}",
            hint=f"put them into {_PARAMS_FILE}",
        )
    return item


def _locked_stage(name: str, body: dict[str, Any]) -> LockedStage:
    return LockedStage(
        name=name,
        cmd=str(body.get("cmd", "")),
        deps=_hashes(body.get("deps", [])),
        outs=_hashes(body.get("outs", [])),
        params=dict(body.get("params", {}).get(_PARAMS_FILE, {})),
    )


def _require_end(project: Project) -> None:
    """Raise ValueError unless the last line has an end: half a number is a number too."""
    if not project.dvc_lock.read_bytes().endswith(b"\n"):
        raise ValueError("the last line has no end")


def _hashes(items: list[dict[str, Any]]) -> dict[str, str]:
    md5s = {item["path"]: str(item.get("md5", "")) for item in items}
    if not all(isinstance(path, str) for path in md5s):
        raise TypeError("a path is no text")
    return md5s
