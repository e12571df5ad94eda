"""One Prefect flow per stage, made by one factory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import Flow, flow

from flows.pipeline import prepare, recorded
from tasks.stages import run_stage
from tasks.steps import read_graph, record_lineage, register_encoder


def make_stage_flow(stage: str) -> Flow[..., dict[str, str]]:
    """Make the flow that brings one stage up to date: ``evaluate@rrg`` becomes ``evaluate-rrg``."""

    def one_stage(root: str = ".") -> dict[str, str]:
        with recorded(root):
            read_graph()
            prepare(stage)
            status = run_stage(stage, "asked for")
            record_lineage()
            if stage == "export":
                register_encoder()
        return {stage: status}

    one_stage.__doc__ = f"Bring stage {stage} of the project in ``root`` up to date."
    decorate: Callable[..., Any] = flow(name=stage.replace("@", "-"), persist_result=False)
    made: Flow[..., dict[str, str]] = decorate(one_stage)
    return made
