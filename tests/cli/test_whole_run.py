"""The installed program on a project: run, nothing to do, where from. Real servers, real DVC."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import migrated_stores
import pytest
from cli_answer import Answer, Lapvqa

from lapvqa.lineage import recording
from lapvqa.project import Project


@pytest.mark.slow
def test_run_then_nothing_to_do_then_lineage(
    toy: Project, process: Callable[..., Answer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    migrated_stores.give(tmp_path_factory, toy)
    changed = toy.root.parent / "mine.yaml"
    changed.write_text("tokens: {max_length: 96}\n")
    answer = process("run", "--params", str(changed), cwd=toy.root)
    assert answer.code == 0, answer.out + answer.err
    assert "params.yaml: tokens.max_length 64 -> 96" in answer.out
    assert re.search(r"^tokens: ran after", answer.out, re.MULTILINE)
    assert "Where to look" in answer.out
    assert not re.search(r"^ingest: (starts|ran)", answer.out, re.MULTILINE)

    again = process("run", cwd=toy.root)
    assert again.code == 0
    assert "nothing to do" in again.out
    assert again.out.count("up to date") == 6

    run = next(e for e in reversed(recording.told(toy)) if e.stage == "evaluate@rrg")
    for target in ("results/rrg/metrics.json", "rrg.mean_auc", run.mlflow_run):
        found = process("lineage", str(target), "--json", cwd=toy.root)
        assert found.code == 0, found.err
        chain = json.loads(found.out)["chain"]
        inventory = [item for item in chain if item["path"] == "data/inventory/source.parquet"]
        assert inventory[0]["facts"] == {"files": 2, "bytes": 2}
        tokens = next(item for item in chain if item["path"] == "data/tokens")
        assert tokens["origin"]["params"]["tokens"]["max_length"] == 96
        assert tokens["origin"]["prefect_flow_run"] == run.prefect_flow_run


def test_lineage_as_a_tree(toy: Project, lapvqa: Lapvqa) -> None:
    out = lapvqa("lineage", "probe_nih14.mean_auc").out
    lines = out.splitlines()
    assert lines[0] == "mean_auc : 0.75"
    assert lines[1].startswith("results/probe_nih14/metrics.json ")
    assert "stage evaluate@probe_nih14" in lines[2]
    assert out.count("(see above)") == 1, "two inventories of one run"
    assert "lists 2 files, 2 B: the archive itself" in out
    assert out.count("data/studies.parquet") == 1
    assert "made on another machine" in out
