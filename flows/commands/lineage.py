"""``lapvqa lineage``: where a file, a metric or a run came from."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from flows.commands import terminal
from lapvqa.lineage.origins import BY_RUN, Origin
from lapvqa.lineage.walk import ArtefactNode, Key, Lineage, trace
from lapvqa.project import Project

if TYPE_CHECKING:
    from rich.tree import Tree

_MD5_SHOWN = 12
_CODE_SHOWN = 6


def execute(project: Project, *, target: str, as_json: bool) -> int:
    """Print the chain of artefacts from ``target`` up to the inventory."""
    lineage = trace(project, target)
    if as_json:
        json.dump(lineage.to_json(), sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
        return 0
    console = terminal.console()
    for line in _headline(lineage):
        console.print(line, markup=False)
    shown: set[Any] = set()
    for key in lineage.target.artefacts:
        console.print(_tree(lineage, key, shown))
    return 0


def _headline(lineage: Lineage) -> list[str]:
    target = lineage.target
    lines = [target.remark] if target.remark else []
    if target.metric is not None:
        values = target.value if isinstance(target.value, dict) else {"": target.value}
        lines += [
            f"{target.metric} {system}: {_value(estimate)}" for system, estimate in values.items()
        ]
    return lines


def _value(estimate: Any) -> str:
    if isinstance(estimate, dict) and estimate.keys() >= {"value", "low", "high"}:
        return f"{estimate['value']} [{estimate['low']}, {estimate['high']}]"
    return str(estimate)


def _tree(lineage: Lineage, key: Key, shown: set[Any], tree: Tree | None = None) -> Tree:
    """Draw an artefact above what it was made from; each run of a stage is told once."""
    from rich.tree import Tree

    node = lineage.nodes[key]
    run = node.origin and (node.origin.stage, node.origin.started)
    told = run is not None and run in shown
    label = f"[bold]{node.path}[/] {node.md5[:_MD5_SHOWN]}"
    if told:
        facts = [f"  stage {node.origin.stage} (see above)"] if node.origin else []
    else:
        facts = _facts(node, lineage)
    text = "\n".join([label, *_listed(node), *facts])
    branch = Tree(text) if tree is None else tree.add(text)
    shown.add(run)
    for upstream in () if told else node.inputs:
        if lineage.nodes[upstream].kind != "code":
            _tree(lineage, upstream, shown, branch)
    return branch


def _listed(node: ArtefactNode) -> list[str]:
    if not node.facts:
        return []
    size = terminal.size(node.facts["bytes"])
    return [f"  lists {node.facts['files']} files, {size}: the archive itself"]


def _facts(node: ArtefactNode, lineage: Lineage) -> list[str]:
    if node.origin is None:
        return [f"  {node.kind}"]
    origin = node.origin
    lines = [f"  stage {origin.stage}, {_when(origin)}"]
    if origin.params:
        lines.append(
            f"  params {json.dumps(origin.params, ensure_ascii=False)}".replace("[", r"\[")
        )
    if origin.git_commit:
        state = " with local changes" if origin.git_dirty else ""
        lines.append(f"  commit {origin.git_commit[:_MD5_SHOWN]}{state}")
    code = [key for key in node.inputs if lineage.nodes[key].kind == "code"]
    if code:
        lines.append("  code " + ", ".join(f"{path} {md5[:_CODE_SHOWN]}" for path, md5 in code))
    runs = {"Prefect run": origin.prefect_flow_run, "MLflow run": origin.mlflow_run}
    lines += [f"  {name} {run}" for name, run in runs.items() if run]
    return lines


def _when(origin: Origin) -> str:
    made = "" if origin.made == BY_RUN else f", made {origin.made}"
    if origin.started is None:
        return f"time unknown{made}"
    if not origin.seconds:  # the ledger's line was written later, from dvc.lock
        return f"before {terminal.moment(origin.started)}{made}"
    return f"{terminal.moment(origin.started)}, took {terminal.span(origin.seconds)}{made}"
