"""What is wrong with a YAML file of settings, in words that a person can act on, line by line.

Only a file that is refused comes here, so it may take its time: the file is parsed once more, for
the lines of its keys.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from lapvqa.errors import ConfigError

FORM = "`section:` and below it, indented by blanks, `key: value` lines"
_KINDS = {dict: "a section", list: "a list", str: "text", int: "a number", float: "a number",
          bool: "true or false", type(None): "nothing"}  # fmt: skip


def malformed(name: str, text: str, error: Exception) -> ConfigError:
    """Return the error for a file that is no YAML, or not UTF-8."""
    if isinstance(error, UnicodeDecodeError):
        what, line = "it is not written in UTF-8", 1 + error.object[: error.start].count(b"\n")
        hint = f"save {name} as UTF-8 in your editor"
        return ConfigError(f"{name} is not valid YAML: {what} (line {line})", hint=hint)
    twice = list(_twice(_composed(text)))
    if twice:
        faults = [f"{name}: {key} stands twice (lines {one} and {two})" for key, one, two in twice]
        return ConfigError("\n".join(faults), hint=f"keep one of them in {name}")
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    problem = (error.problem if isinstance(error, MarkedYAMLError) else None) or "unreadable"
    where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    if "'\\t'" in problem or (mark and _begins_with_tab(text, mark.line)):
        problem, hint = "found a tab", f"put blanks in the place of tabs in {name}"
    else:
        hint = f"correct the line in {name}, or one just above it"
    return ConfigError(f"{name} is not valid YAML: {problem}{where}", hint=hint)


def no_mapping(name: str, value: object) -> ConfigError:
    """Return the error for a file that has no keys."""
    return ConfigError(f"{name}: expected sections, found {_kind(value)}", hint=f"write {FORM}")


def empty(name: str, model: type[BaseModel]) -> ConfigError | None:
    """Return the error for a file without a line of settings; None if it may be so."""
    needed = [
        field.alias or key for key, field in model.model_fields.items() if field.is_required()
    ]
    if not needed:
        return None
    return ConfigError(
        f"{name} is empty; expected {', '.join(needed)}",
        hint=f"restore it: git checkout {name}",
    )


def refused(model: type[BaseModel], name: str, text: str, error: ValidationError) -> ConfigError:
    """Return the error for values that ``model`` does not take: every fault, with its line."""
    root = _composed(text)
    faults = []
    for fault in error.errors():
        line = _line(root, fault["loc"])
        at = f" (line {line})" if line else ""
        faults.append(f"{name}: {_describe(model, dict(fault))}{at}")
    return ConfigError("\n".join(faults), hint=f"edit {name}")


def _kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _begins_with_tab(text: str, line: int) -> bool:
    lines = text.splitlines()
    return line < len(lines) and lines[line].lstrip(" ").startswith("\t")


def _composed(text: str) -> Node | None:
    """Return the file's nodes, which know their lines; None if it cannot be parsed."""
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except YAMLError:
        return None
    return node


def _twice(node: Node | None) -> Iterator[tuple[str, int, int]]:
    """Yield each key that stands twice in one mapping, with both lines."""
    if isinstance(node, SequenceNode):
        for value in node.value:
            yield from _twice(value)
    if isinstance(node, MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if first.setdefault(name, line) != line:
                yield name, first[name], line
            yield from _twice(value)


def _line(node: Node | None, location: Sequence[int | str]) -> int | None:
    """Return the line of a key, else that of the section around it; None if there is none."""
    line = None
    for part in location:
        found = None
        if isinstance(node, MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(part)), None)
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = (node.value[part], node.value[part])
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _describe(model: type[BaseModel], fault: dict[str, Any]) -> str:
    location = [str(part) for part in fault["loc"]]
    key = ".".join(location)
    if fault["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1)
        guess = f"nearest: {near[0]}" if near else f"known: {', '.join(known)}"
        return f"{key} is not a known parameter; {guess}"
    if fault["type"] == "missing":
        inner = _known_keys(model, location)
        return f"{key} is missing" + (f"; a section with {', '.join(inner)}" if inner else "")
    found = fault.get("input")
    if fault["type"] == "model_type":
        return f"{key}: expected a section, found {_kind(found)}; write {FORM}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if isinstance(found, dict):
        return f"{key}: {message}"
    if isinstance(found, date):  # DVC knows no dates in params.yaml either
        return f'{key} is {found}, which YAML takes for a date; write it in quotes: "{found}"'
    return f"{key} is {found!r}; {message[0].lower()}{message[1:]}"


def _known_keys(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Return the keys of the section at ``location``; none if it is no section."""
    section = _section(model, location)
    fields = section.model_fields if section else {}
    return sorted(field.alias or name for name, field in fields.items())


def _section(annotation: Any, location: Sequence[str]) -> type[BaseModel] | None:
    """Return the section at ``location``, through lists and named entries of sections too."""
    container = get_origin(annotation)
    if container is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not location:
            return annotation
        fields = {field.alias or name: field for name, field in annotation.model_fields.items()}
        field = fields.get(location[0])
        return _section(field.annotation, location[1:]) if field else None
    if container in (list, dict):
        if not location:
            return None
        location = location[1:]
    inner = (_section(argument, location) for argument in get_args(annotation))
    return next(filter(None, inner), None)
