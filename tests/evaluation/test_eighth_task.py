"""An evaluation is one folder and a few lines: the worked example of docs/extending.md, run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import migrated_stores
import pytest
from demo_project import build
from worked_example import assert_shown, copy_package, insert, run

from lapvqa import storage
from lapvqa.evaluation import contract, task_table
from lapvqa.networks.weights import serialise
from lapvqa.params import ModelParams, load_params
from lapvqa.pretrain.files import initial_model
from lapvqa.project import Project

FOLDER = Path(__file__).parent / "eighth_task" / "view"
SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
)  # fmt: skip

# Name in docs/extending.md -> file, the line after (or before) which they stand, the lines.
TABLE = '    "view": "lapvqa.view.task",\n'
PARAMS_CLASS = '''\
class ViewParams(Section):
    """View of an image: how many nearest training images vote."""

    neighbours: Count = 3
'''
PARAMS_FIELD = "    view: ViewParams = ViewParams()\n"
PARAMS_YAML = """\
  view:
    neighbours: 3               # training images that vote
"""
DVC_KEY = """\
      view:
        data: data/images.parquet
        tested: data/firewall/tested/archive.parquet
        code: lapvqa/view
        reader: lapvqa/view/judge.py
        metrics: lapvqa/metrics/texts
"""
DVC_REPORT = """\
      - results/view/metrics.json
      - results/view/predictions.parquet
"""


MARK = "=== next ===\n"
# Several commands in one process: each start costs seconds.
COMMANDS = f"""\
from pathlib import Path

from rich.console import Console

from flows.cli import main
from flows.commands.run_summary import show_results
from lapvqa.project import Project
from lapvqa.stage import run_stage
from tasks.results import result_rows

project = Project(Path.cwd())
run_stage("report", project)
for action in (
    lambda: main(["score", "view", "results/view/predictions.parquet"]),
    lambda: show_results(project, Console(width=140)),
    lambda: print([row["task"] for row in result_rows(project)]),
    lambda: main(["evaluate", "view", "--encoder", "other", "--json"]),
    lambda: main(["evaluate", "--compare", "--json"]),
):
    print({MARK!r}, end="", flush=True)
    assert not action()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Project:
    """A checkout with the eighth evaluation, and in it a small archive and an encoder."""
    root = tmp_path_factory.mktemp("eighth")
    copy_package(repository, root)
    made = build(tmp_path_factory, root, SIZES)
    folder, model = made.model_dir("captioning"), initial_model(SIZES, seed=5)
    storage.write_bytes(folder / "model_best.pt", serialise(model.state_dict()))
    (folder / "history.csv").write_text("step,epoch,loss,lr,val_loss\n1,0,2.0,0.1,2.5\n")
    other = initial_model(SIZES, seed=1).vision_encoder
    storage.write_bytes(root / "other" / "encoder_final.pt", serialise(other.state_dict()))
    shutil.copy(folder / "card.json", root / "other")
    made.local.write_text("{workers: 1, device: cpu}\n")
    quick = made.params.read_text()
    for long, short in (  # the evaluation stands on a pretraining, which runs too
        ("bootstrap_draws: 1000", "bootstrap_draws: 50"),
        ("\n  epochs: 160\n", "\n  epochs: 2\n"),
        ("warmup_steps: 100", "warmup_steps: 2"),
    ):
        assert quick.count(long) == 1
        quick = quick.replace(long, short)
    made.params.write_text(quick)
    common = load_params(made.params).evaluate.common
    for record in task_table.find_all():
        contract.not_computed(
            record, "left out here", folder=made.result_dir(record.name), common=common
        )
    add_the_eighth(root)
    migrated_stores.give(tmp_path_factory, made)
    return made


def add_the_eighth(root: Path) -> None:
    shutil.copytree(FOLDER, root / "lapvqa" / "view")
    insert(root / "lapvqa/evaluation/task_table.py", TABLE, before='}\n"""Task -> the module')
    params = root / "lapvqa/params.py"
    insert(params, f"{PARAMS_CLASS}\n\n", before="class EvaluateParams(Section):\n")
    insert(params, PARAMS_FIELD, before="\n\nclass DriftParams(Section):\n")
    insert(root / "params.yaml", PARAMS_YAML, before="\nreport:\n")
    graph = root / "dvc.yaml"
    insert(graph, DVC_KEY, before="    do:\n      cmd: python -m lapvqa.stage evaluate@")
    report = "      - models/${pretrain.objective}/card.json\n      - models/"
    insert(graph, DVC_REPORT, before=report)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_appears_wherever_the_others_do(project: Project) -> None:
    run(project.root, "dvc", "init", "--no-scm", "-q")
    said = run(project.root, "flows.cli", "run", "--stage", "evaluate@view")
    assert "evaluate@view: ran after" in said
    metrics = storage.read_json(
        project.result_dir("view") / "metrics.json", made_by="evaluate@view"
    )
    assert metrics["status"] == "ok"
    assert set(metrics["systems"]) == {"trained", "untrained"}
    assert metrics["protocol"]["neighbours"] == 3

    (project.root / "commands.py").write_text(COMMANDS)
    *printed, own, compared = run(project.root, "commands").split(MARK)[1:]
    scored, table, rows = printed
    assert f"view: {metrics['num_samples']} samples of" in scored
    assert "view exact_match" in table
    assert "'view'" in rows
    assert set(json.loads(own)["systems"]) == {"other"}
    line = next(line for line in json.loads(compared)["lines"] if line["task"] == "view")
    assert {"trained", "untrained", "other"} <= set(line["systems"])

    page = project.report_page.read_text()
    assert "View of the image" in page
    assert "which view is it?" in page
    assert (project.pictures_dir / "view.svg").exists()


def test_the_document_shows_these_very_files_and_lines(repository: Path) -> None:
    files = [FOLDER / name for name in ("task.py", "judge.py")]
    lines = [TABLE, PARAMS_CLASS, PARAMS_FIELD, PARAMS_YAML, DVC_KEY, DVC_REPORT]
    assert_shown(repository, files=files, lines=lines)
