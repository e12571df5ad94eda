"""Write the generated pages of docs/ from the code: ``python docs/make_reference.py``.

Files and columns are in ``make_artifacts``, the picture of the flow in ``make_flow``; here are
commands, parameters, reasons and metrics.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import make_artifacts  # noqa: E402
import make_flow  # noqa: E402

from flows.cli import app  # noqa: E402
from lapvqa.dicom.reasons import Reason  # noqa: E402
from lapvqa.evaluation import task_table  # noqa: E402
from lapvqa.machine import Machine  # noqa: E402
from lapvqa.metrics.record import DEFINITIONS  # noqa: E402
from lapvqa.params import Params  # noqa: E402
from lapvqa.report.page_results import METRICS  # noqa: E402
from lapvqa.text.tokens import _EXPLANATIONS as EXPLANATIONS  # noqa: E402

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_KEY = re.compile(r"^( *)([a-z_0-9]+):(?: ([^#]*?))?(?:\s+# (.*))?$")
_MORE = re.compile(r"^ {20,}# (.*)$")


_INTRO = {
    "parameters": """
What changes a result stands in `params.yaml`; a value out of range is an error that names key,
value, range and the nearest match. The last column is the comment beside the value there; the
value is that of the demo.
""",
    "local": """
## `local.yaml`

Facts of this machine, which git ignores and which change no number. All may be absent.

| key | kind | default | |
|---|---|---|---|
""",
    "rejects": """
What is not taken has a row with its reason in a table; `lapvqa rejects` lists them, reads again
(`retry`) and accepts (`waive`).

## `data/rejects.parquet`: files, reports, studies

| reason | what to do |
|---|---|
""",
    "token rejects": """
## `data/token_rejects.parquet`: studies without tokens

| reason | why | what to do |
|---|---|---|
""",
    "evaluations": """
Why they are computed so, parity with other implementations and coverage of the intervals:
[metrics.md](metrics.md).

## Evaluations

| task | | primary metric | |
|---|---|---|---|
""",
    "metrics": """
## Metrics

A name may have `mean_` before it and `/group` behind it: a class, a type of question, a direction.

| metric | | implementation | tokens | empty output | undefined |
|---|---|---|---|---|---|
""",
}


def _head(title: str, source: str) -> str:
    made = "Written by `docs/make_reference.py` (`make docs`)"
    return f"# {title}\n\n{made} from {source}; edit that.\n"


def cli_page() -> str:
    """Return every command with its arguments and options, as `--help` says them."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="lapvqa")
    text = get_docs_for_click(obj=command, ctx=context, name="lapvqa")
    body = re.sub(r"\A# `lapvqa`\n", "", text)
    body = re.sub(r"<(?=[a-z])([^>\n`]*)>", r"‹\1›", body)  # types are no HTML
    return f"{_head('Commands', '`flows/cli.py`')}\n{body.strip()}\n"


def parameters_page() -> str:
    """Return the keys of params.yaml and local.yaml: kind, range, value, meaning."""
    source = "`lapvqa/params.py`, `lapvqa/machine.py` and the comments of `params.yaml`"
    parts = [_head("Parameters", source), _INTRO["parameters"]]
    comments = _comments((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, field in Params.model_fields.items():
        parts.append(f"\n## `{name}`\n\n| key | kind | value | meaning |\n|---|---|---|---|\n")
        parts += _rows(field.annotation, name, comments)
    parts.append(_INTRO["local"])
    for name, field in Machine.model_fields.items():
        parts += _field(field, name, {})
    return "".join(parts)


def _rows(section: Any, prefix: str, comments: dict[str, tuple[str, str]]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield from _field(field, f"{prefix}.{field.alias or name}", comments)


def _field(field: FieldInfo, key: str, comments: dict[str, tuple[str, str]]) -> Iterator[str]:
    inner = field.annotation
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        yield from _rows(inner, key, comments)
        return
    made_here = field.default_factory is not None and get_origin(inner) is None  # by the machine
    default = None if made_here else field.get_default(call_default_factory=True)
    given, said = comments.get(key, ("", ""))
    shown = given or ("" if field.is_required() or default is None else str(default))
    yield f"| `{key}` | {_kind(inner, field)} | {_code(shown)} | {_cell(said)} |\n"


def _kind(kind: Any, field: FieldInfo | None = None) -> str:
    bounds = [
        f"{sign} {getattr(one, name):g}"
        for one in (field.metadata if field else [])
        for name, sign in _BOUNDS.items()
        if getattr(one, name, None) is not None
    ]
    return ", ".join([_type(kind), *bounds])


def _type(kind: Any) -> str:
    if getattr(kind, "__metadata__", None):  # Annotated inside a list or a union
        return _kind(kind.__origin__, FieldInfo.from_annotation(kind))
    origin = get_origin(kind)
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in get_args(kind))
    if origin in (Union, UnionType):
        parts = [_type(part) for part in get_args(kind) if part is not NoneType]
        return " \\| ".join(parts) + (", may be empty" if NoneType in get_args(kind) else "")
    if origin in (list, dict):
        return f"{origin.__name__} of {', '.join(_type(part) for part in get_args(kind))}"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true \\| false"}.get(
        getattr(kind, "__name__", str(kind)), f"`{getattr(kind, '__name__', kind)}`"
    )


def _comments(text: str) -> dict[str, tuple[str, str]]:
    """Return dotted key -> (value, comment) of each line of params.yaml."""
    found: dict[str, tuple[str, str]] = {}
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        if (more := _MORE.match(line)) and found:
            last = next(reversed(found))
            found[last] = (found[last][0], f"{found[last][1]} {more[1]}")
        elif match := _KEY.match(line):
            indent = len(match[1])
            path = [one for one in path if one[0] < indent] + [(indent, match[2])]
            found[".".join(name for _, name in path)] = (match[3] or "", match[4] or "")
    return found


def reasons_page() -> str:
    """Return every reason for which a file, a report or a study is not taken, and the remedy."""
    rows = [f"| `{reason}` | {_cell(reason.remedy)} |\n" for reason in Reason]
    verdicts = [
        f"| `{verdict}` | {_cell(why)} | {_cell(remedy)} |\n"
        for verdict, (why, remedy) in EXPLANATIONS.items()
    ]
    source = "`lapvqa/dicom/reasons.py` and `lapvqa/text/tokens.py`"
    head = _head("Reasons of rejects", source)
    return "".join([head, _INTRO["rejects"], *rows, _INTRO["token rejects"], *verdicts])


def metrics_page() -> str:
    """Return every metric by its key, and the tasks by their primary one."""
    tasks = [
        f"| `{task.name}` | {_cell(task.title)} | `{task.primary}` | {_cell(task.about)} |\n"
        for task in task_table.find_all()
    ]
    rows = []
    for name, one in DEFINITIONS.items():
        told = (METRICS.get(name, ""), one.implementation, one.tokenisation, one.empty_output,
                one.undefined)  # fmt: skip
        rows.append(f"| `{name}` | {' | '.join(map(_cell, told))} |\n")
    source = "`lapvqa/metrics/record.py` and the records of the evaluations"
    head = _head("Metrics and evaluations", source)
    return "".join([head, _INTRO["evaluations"], *tasks, _INTRO["metrics"], *rows])


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _code(text: str) -> str:
    return f"`{_cell(text).replace('&lt;', '<')}`" if text else ""


PAGES: dict[str, Callable[[], str]] = {
    "artifacts.md": make_artifacts.page,
    "cli.md": cli_page,
    "parameters.md": parameters_page,
    "reject-reasons.md": reasons_page,
    "metric-definitions.md": metrics_page,
    "img/flow.svg": make_flow.flow,
}


if __name__ == "__main__":
    for name, make in PAGES.items():
        (ROOT / "docs" / name).write_text(make(), encoding="utf-8")
        sys.stdout.write(f"wrote docs/{name}\n")
