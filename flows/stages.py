"""One Prefect flow per stage, made by one factory from the stages of dvc.yaml."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from prefect import Flow, flow

from flows.pipeline import recorded
from lapvqa.errors import ConfigError
from lapvqa.layout import Layout
from lapvqa.lineage.stagefile import declared
from tasks.stages import run_stage
from tasks.steps import read_graph, record_lineage, register_encoder


def stage_flows(layout: Layout) -> dict[str, Flow[..., dict[str, str]]]:
    """Return a flow for each stage of dvc.yaml, by the stage's name."""
    return {name: make_stage_flow(name) for name in declared(layout)}


def choose(layout: Layout, name: str) -> Flow[..., dict[str, str]]:
    """Return the flow of one stage; ConfigError names the nearest if there is none."""
    flows = stage_flows(layout)
    if name not in flows:
        near = difflib.get_close_matches(name, flows, n=1)
        guess = f"nearest: {near[0]}" if near else f"stages: {', '.join(flows)}"
        raise ConfigError(f"unknown stage {name!r}; {guess}", hint="see `lapvqa status`")
    return flows[name]


def make_stage_flow(stage: str) -> Flow[..., dict[str, str]]:
    """Make the flow that brings one stage up to date: ``evaluate@rrg`` becomes ``evaluate-rrg``."""

    def one_stage(root: str = ".") -> dict[str, str]:
        with recorded(root):
            read_graph()
            status = run_stage(stage, "asked for")
            record_lineage()
            if stage == "export":
                register_encoder()
        return {stage: status}

    one_stage.__doc__ = f"Bring stage {stage} of the project in ``root`` up to date."
    decorate: Callable[..., Any] = flow(name=stage.replace("@", "-"), persist_result=False)
    made: Flow[..., dict[str, str]] = decorate(one_stage)
    return made
