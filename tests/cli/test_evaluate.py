"""Any encoder judged as the pipeline's own, and all of them side by side."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import migrated_stores
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import tiny_models
import toy_project
from cli_answer import Answer, Lapvqa
from demo_project import build
from rich.console import Console

from lapvqa import storage
from lapvqa.errors import EXIT_USER
from lapvqa.evaluation import contract, sealed, task_table
from lapvqa.evaluation.task_table import EVALUATIONS
from lapvqa.gate import looks
from lapvqa.lineage import ledger, recording
from lapvqa.lineage.runs import Run
from lapvqa.machine import Machine
from lapvqa.metrics.bootstrap import draw_values
from lapvqa.metrics.paired import from_draws
from lapvqa.networks.weights import serialise
from lapvqa.params import ModelParams, load_params
from lapvqa.pretrain.files import load_encoder
from lapvqa.pretrain.model import initial_model
from lapvqa.project import Project
from lapvqa.schemas import INVENTORY
from lapvqa.stage import run_stage
from tasks import promotion
from tasks.display import Display
from tasks.mlflow_records import registry
from tasks.mlflow_records.connection import connect

SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
)  # fmt: skip
BOTH = ("--encoder", "encoders/First one", "--encoder", "encoders/second")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A demo project whose seven evaluations are computed, and two other encoders."""
    root = tmp_path_factory.mktemp("judged")
    project = build(tmp_path_factory, root, SIZES)
    quick = project.params.read_text().replace("bootstrap_draws: 1000", "bootstrap_draws: 50")
    quick = re.sub(r"(?m)^      epochs: \d+", "      epochs: 1", quick)
    project.params.write_text(re.sub(r"max_new_tokens: \d+", "max_new_tokens: 8", quick))
    project.local.write_text("{workers: 1, device: cpu}\n")
    project.dvc_yaml.write_text("stages: {}\n")
    card = {"model": SIZES.model_dump(), "init_seed": 0, "objective": "captioning"}
    model, folder = initial_model(SIZES, seed=5), project.model_dir("captioning")
    storage.write_bytes(folder / "model_best.pt", serialise(model.state_dict()))
    storage.write_json(folder / "card.json", card)
    for seed, name in enumerate(("First one", "second"), start=1):
        encoder = initial_model(SIZES, seed=seed).vision_encoder
        path = root / "encoders" / name
        storage.write_bytes(path / "encoder_final.pt", serialise(encoder.state_dict()))
        storage.write_json(path / "card.json", card)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for task in EVALUATIONS:
            run_stage(f"evaluate@{task}", project)
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = tmp_path / "project"
    shutil.copytree(template, root, copy_function=os.link)  # files are replaced, never changed
    monkeypatch.chdir(root)
    return Project(root)


def comparison(lapvqa: Lapvqa) -> dict[str, dict[str, Any]]:
    """Make the comparison again; return its lines by task, of reports that of the head."""
    answer = lapvqa("evaluate", "--compare", "--json")
    assert answer.code == 0, answer.err
    lines = json.loads(answer.out)["lines"]
    return {line["task"]: line for line in lines if line["writer"] != "decoder"}


def test_all_tasks_for_two_encoders_beside_the_pipelines(
    project: Project, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    answer = lapvqa("evaluate", "--all", *BOTH)
    assert answer.code == 0, answer.err
    table = answer.out[answer.out.index("Primary metric") :].splitlines()
    for task in EVALUATIONS:
        head = next(k for k, line in enumerate(table) if re.match(rf"{task}(, head)?: ", line))
        primary = task_table.find(task).primary
        assert primary in table[head]
        block = table[head : table.index("", head)]
        rows = {line.split()[0]: line for line in block[2:]}
        assert {"trained", "untrained", "first-one", "second"} <= set(rows)
        metrics = storage.read_json(
            project.evaluations_dir("second") / task / "metrics.json", made_by=""
        )
        assert f"{metrics['systems']['second'][primary]['value']:.3f}" in rows["second"]
    assert any("DeLong" in line for line in table)
    assert all(len(line) <= 80 for line in table if not line.startswith("written"))
    facts = storage.read_json(project.evaluations_dir("first-one") / "encoder.json", made_by="")
    assert facts["file"] == "First one"
    assert re.fullmatch(r"[0-9a-f]{64}", facts["digest"])
    assert str(project.root) not in (project.root / "evaluations/comparison.json").read_text()
    traced = json.loads(lapvqa("lineage", "second/vqa.exact_match", "--json").out)
    assert traced["target"]["value"] == {"second": metrics_of(project, "second", "vqa")}
    (judged,) = [
        item["origin"] for item in traced["chain"] if item["path"].endswith("metrics.json")
    ]
    facts = storage.read_json(project.evaluations_dir("second") / "encoder.json", made_by="")
    assert judged["counts"]["digest"] == facts["digest"]
    assert judged["params"]["evaluate.common"]["bootstrap_draws"] == 50


def metrics_of(project: Project, name: str, task: str) -> dict[str, float]:
    """Return the primary metric of an encoder's own evaluation."""
    metrics = storage.read_json(project.evaluations_dir(name) / task / "metrics.json", made_by="")
    return metrics["systems"][name][metrics["primary"]]


@pytest.mark.parametrize("task", ["vqa", "ad"])
def test_an_encoder_of_another_library(
    task: str, project: Project, lapvqa: Lapvqa, tmp_path: Path
) -> None:
    folder = tiny_models.save(tmp_path / "clip", tiny_models.clip(), tiny_models.clip_processor())
    answer = lapvqa("evaluate", task, "--encoder", str(folder), "--json")
    assert answer.code == 0, answer.err
    metrics = storage.read_json(project.evaluations_dir("clip") / task / "metrics.json", made_by="")
    assert set(metrics["systems"]) == {"clip"}
    assert "CLIP" in metrics["protocol"]["encoder_clip"]
    own = storage.read_json(project.result_dir(task) / "metrics.json", made_by="")
    assert metrics["protocol"]["samples_sha256"] == own["protocol"]["samples_sha256"]


def test_differences_are_paired_with_trained(project: Project, lapvqa: Lapvqa) -> None:
    assert lapvqa("evaluate", "--all", *BOTH).code == 0
    common = load_params(project.params).evaluate.common
    lines = comparison(lapvqa)
    for task, line in lines.items():
        evaluation = task_table.find(task)

        def measured(folder: Path, system: str, evaluation: Any = evaluation) -> Any:
            table = pq.read_table(folder / "predictions.parquet")
            return evaluation.measure(table.filter(pc.equal(table["system"], system)))

        trained = "head_trained" if task == "rrg" else "trained"
        systems = (
            measured(project.evaluations_dir("second") / task, "second"),
            measured(project.result_dir(task), trained),
        )
        draws = [
            draw_values(
                each.statistic, each.patients, draws=common.bootstrap_draws, seed=common.seed
            )
            for each in systems
        ]
        differences = from_draws(
            systems[0].names, *draws, patients=len(set(systems[0].patients)),
            confidence=common.confidence,
        )  # fmt: skip
        expected = differences[evaluation.primary]
        found = line["systems"]["second"]["difference"]
        assert found == pytest.approx(vars(expected), abs=1e-6), task
        assert line["systems"]["trained"]["difference"] is None
    assert any(one["difference"]["value"] for one in lines["pg"]["systems"].values()
               if one["difference"])  # fmt: skip
    assert set(lines["probe_chexpert"]["systems"]["second"]["delong_p"]) > {"Edema"}


def test_the_same_weights_differ_by_nothing(project: Project, lapvqa: Lapvqa) -> None:
    weights = "models/captioning/encoder_final.pt"
    for task in ("probe_nih14", "pg", "rrg"):
        answer = lapvqa("evaluate", task, "--encoder", weights, "--name", "again")
        assert answer.code == 0, answer.err
        assert "again" in answer.out
        assert task_table.find(task).primary in answer.out
    lines = comparison(lapvqa)
    for task in ("probe_nih14", "pg", "rrg"):
        systems = lines[task]["systems"]
        assert systems["again"]["value"] == systems["trained"]["value"]
        assert systems["again"]["difference"]["value"] == 0
    assert lines["vqa"]["not_computed"]["again"] == "not evaluated yet"


def rescored(
    project: Project, task: str, name: str, change: Callable[[pa.Table], pa.Table]
) -> None:
    """Change the predictions of an encoder and score them as its own."""
    folder, evaluation = project.evaluations_dir(name) / task, task_table.find(task)
    table = change(pq.read_table(folder / "predictions.parquet"))
    storage.write_table(folder / "predictions.parquet", table, evaluation.schema)
    common = load_params(project.params).evaluate.common
    contract.score(evaluation, folder=folder, common=common)


def test_other_test_sets_have_no_difference(project: Project, lapvqa: Lapvqa) -> None:
    for task in ("probe_chexpert", "pg"):
        assert lapvqa("evaluate", task, *BOTH[2:]).code == 0
    assert comparison(lapvqa)["pg"]["systems"]["second"]["difference"] is not None

    def without_one(table: pa.Table) -> pa.Table:
        return table.filter(pc.not_equal(table["sample"], table["sample"][0]))

    def truth_flipped(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("target")
        flipped = pc.subtract(pa.scalar(1, pa.int8()), table["target"])
        return table.set_column(place, table.schema.field("target"), flipped)

    rescored(project, "pg", "second", without_one)
    rescored(project, "probe_chexpert", "second", truth_flipped)
    lines = comparison(lapvqa)
    for task, note in (("pg", "test sets differ"), ("probe_chexpert", "truth differs")):
        second = lines[task]["systems"]["second"]
        assert (second["difference"], second["note"]) == (None, note)
        assert lines[task]["systems"]["untrained"]["difference"] is not None
    shown = lapvqa("evaluate", "--compare").out
    assert "test sets differ" in shown
    assert "truth differs" in shown


def test_absent_data_is_said_and_a_failure_stops_no_other_task(
    project: Project, lapvqa: Lapvqa
) -> None:
    storage.write_table(project.inventory("vindr"), INVENTORY.empty_table(), INVENTORY)
    project.inventory("ms_cxr").unlink()
    answer = lapvqa("evaluate", "--all", *BOTH[2:])
    assert answer.code == EXIT_USER
    assert "second, pg: failed" in answer.out
    assert "ms_cxr.parquet" in answer.err
    lines = comparison(lapvqa)
    assert "inventory.vindr" in lines["ad"]["not_computed"]["second"]
    assert lines["pg"]["not_computed"]["second"] == "not evaluated yet"
    assert lines["vqa"]["systems"]["second"]["difference"] is not None
    assert "second: not computed: no VinDr-CXR images here" in lapvqa("evaluate", "--compare").out


def test_json_stands_alone_on_standard_output(project: Project, lapvqa: Lapvqa) -> None:
    answer = lapvqa("evaluate", "probe_nih14", *BOTH, "--json")
    first, second = json.loads(answer.out)
    assert list(first["systems"]) == ["first-one"]
    assert list(second["systems"]) == ["second"]
    assert "evaluate@probe_nih14: ran" in answer.err
    own = storage.read_json(project.result_dir("probe_nih14") / "metrics.json", made_by="")
    assert first["protocol"]["samples_sha256"] == own["protocol"]["samples_sha256"]


def test_the_files_hold_what_the_table_shows(project: Project, lapvqa: Lapvqa) -> None:
    assert lapvqa("evaluate", "probe_chexpert", *BOTH).code == 0
    lines = comparison(lapvqa)
    folder = project.root / "evaluations"
    before = {path.name: path.read_bytes() for path in folder.glob("comparison.*")}
    assert set(before) == {"comparison.json", "comparison.csv", "comparison.svg"}
    with (folder / "comparison.csv").open(newline="") as handle:
        rows = {row["row"]: row for row in csv.DictReader(handle)}
    second = lines["probe_chexpert"]["systems"]["second"]
    assert float(rows["probe_chexpert: second"]["value"]) == second["value"]
    assert float(rows["probe_chexpert: second"]["difference"]) == second["difference"]["value"]
    assert "rrg, decoder: most_common" in rows
    root = ET.fromstring(before["comparison.svg"])
    texts = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "second" in texts
    value = f"{second['value']:.3f} [{second['low']:.3f}, {second['high']:.3f}]"
    assert f"{value} unknown training" in texts
    assert rows["probe_chexpert: second"]["training"].startswith("unknown training: it is not")
    assert rows["probe_chexpert: untrained"]["training"] == "", "it has seen nothing"
    assert b"http" not in before["comparison.svg"].replace(b"http://www.w3.org/2000/svg", b"")
    comparison(lapvqa)
    assert before == {path.name: path.read_bytes() for path in folder.glob("comparison.*")}


def test_an_encoders_training_is_unknown_until_somebody_states_it(
    project: Project, lapvqa: Lapvqa
) -> None:
    def compared(*options: str) -> str:
        answer = lapvqa("evaluate", "--compare", *options)
        assert answer.code == 0, answer.err
        return " ".join(answer.out.split())

    judged = lapvqa("evaluate", "probe_nih14", *BOTH[2:])
    assert judged.code == 0, judged.err
    assert "probe_nih14: unknown training: it is not known what" in judged.out
    before = compared()
    assert "unknown training: trained, second: it is not known" in before
    assert "lapvqa evaluate --compare --name second --trained-on" in before
    stated = ("--trained-on", "web photographs, no radiographs")
    said = compared("--name", "second", *stated)
    assert "stated training: second: web photographs, no radiographs (as stated;" in said
    assert "unknown training: trained: it is not known" in said, "of the toy nobody knows it either"
    assert lapvqa("evaluate", "probe_nih14", *BOTH[2:]).code == 0
    assert "stated training: second" in compared(), "it is kept"
    nobody = lapvqa("evaluate", "--compare", "--name", "secnd", *stated)
    assert nobody.code == EXIT_USER
    assert "no encoder in evaluations/ called 'secnd'" in nobody.err
    assert "did you mean second?" in nobody.err
    assert lapvqa("evaluate", "--compare", *stated).code == EXIT_USER


def test_a_name_belongs_to_one_encoder(project: Project, lapvqa: Lapvqa) -> None:
    name = ("--name", "mine")
    assert lapvqa("evaluate", "probe_nih14", *BOTH[:2], *name).code == 0
    before = (project.evaluations_dir("mine") / "probe_nih14/metrics.json").read_bytes()
    other = lapvqa("evaluate", "probe_nih14", *BOTH[2:], *name)
    assert other.code == EXIT_USER
    assert "evaluations/mine has results of another encoder" in other.err
    assert "--name" in other.err
    assert (project.evaluations_dir("mine") / "probe_nih14/metrics.json").read_bytes() == before
    again = lapvqa("evaluate", "probe_nih14", *BOTH[:2], *name)
    assert again.code == 0, "the same encoder may be judged again"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["probe_chexprt"], "did you mean probe_chexpert?"),
        ([], "expected one of: a task, --all, --compare"),
        (["ad", "--all"], "expected one of: a task, --all, --compare"),
        (["--compare", *BOTH], "--compare computes nothing"),
        (["ad", *BOTH, "--name", "one"], "found 1 for 2"),
        (["ad", *BOTH, "--name", "one", "--name", "one"], "two encoders would be called one"),
        (["ad", *BOTH[:2], "--name", "trained"], "found 'trained'"),
        (["ad", *BOTH[:2], "--name", "../up"], "found '../up'"),
        (["ad", *BOTH[:2], "--name", "Demo one"], "such as --name demo-one\n"),
        (["ad", "--encoder", "nowhere"], "expected an encoder at nowhere"),
    ],
)
def test_wrong_use_is_named(
    project: Project, lapvqa: Lapvqa, arguments: list[str], said: str
) -> None:
    answer = lapvqa("evaluate", *arguments)
    assert answer.code == EXIT_USER
    assert said in answer.err
    assert not (project.root / "evaluations").exists()


DVC_YAML = """\
stages:
  evaluate:
    foreach:
      probe_nih14: {data: data/inventory/nih14.parquet}
    do:
      cmd: python -P -m lapvqa.stage evaluate@${key}
      deps: ["${item.data}", models/captioning/encoder_final.pt]
      params: [evaluate.common, "evaluate.${key}"]
      outs: ["results/${key}/predictions.parquet"]
      metrics: ["results/${key}/metrics.json"]
"""


@pytest.mark.slow
def test_without_an_encoder_it_is_the_pipelines_stage(
    project: Project, process: Callable[..., Answer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    migrated_stores.give(tmp_path_factory, project)
    project.dvc_yaml.write_text(DVC_YAML)
    shutil.rmtree(project.result_dir("probe_nih14"))
    toy_project.run_dvc(project.root, "init", "--no-scm", "-q")
    answer = process("evaluate", "probe_nih14", cwd=project.root)
    assert answer.code == 0, answer.out + answer.err
    assert "evaluate@probe_nih14: ran after" in answer.out
    assert "probe_nih14: 12 samples of" in answer.out
    assert re.search(r"mean_auc .*0\.\d{3}", answer.out)
    assert project.dvc_lock.exists()
    again = process("evaluate", "probe_nih14", "--json", cwd=project.root)
    assert json.loads(again.out)["primary"] == "mean_auc"
    assert "up to date" in again.err


def test_the_gate_judges_a_champion_that_has_no_predictions_yet(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By the same evaluation, on the same patients; what then is refused, is refused for cause."""
    migrated_stores.give(tmp_path_factory, project)
    ledger.append(project, ledger.RUN, Run("ingest", 0.0, 1.0).payload())
    folder, now = project.model_dir("captioning"), "encoders/second"
    card = storage.read_json(folder / "card.json", made_by="")
    champion, candidate = (_export(path, card) for path in (project.root / now, folder))
    store = connect(project, Machine())
    registry.register_folder(store, project, project.root / now)
    said = {"what": looks.GATE, "verdict": "promote", "look": None, "champion": "",
            "candidate": champion}  # fmt: skip
    ledger.append(project, ledger.DECISION, said)
    patients = sealed.tested_patients(project)
    sealed.write_rule(project, share=0.5, round_name="r", opened="", shown=())
    public = re.sub(r"(?m)^    probe_\w+\.mean_auc: .*\n", "", project.params.read_text())
    storage.write_bytes(project.params, public.encode())  # a link: not changed
    run_stage("evaluate@rrg", project)

    def gate() -> list[str]:
        result = promotion.run_gate(project, Display(Console(quiet=True)))
        assert result.candidate is not None
        assert result.candidate.sha256 == candidate
        assert result.judgement is not None
        return list(result.judgement.verdict.reasons)

    reasons = gate()
    name = f"model-{champion[:12]}"
    rows = [
        set(pq.read_table(project.evaluations_dir(name) / "rrg" / file)["patient"].to_pylist())
        for file in ("predictions.parquet", "sealed.parquet")
    ]
    assert rows[1] <= sealed.sealed_patients(project) < patients
    assert not rows[0] & rows[1]
    refused = [why for why in reasons if "unknown training (training_unknown)" not in why]
    assert refused == [f"{len(rows[1])} sealed patients have predictions, 30 are asked"]
    made = recording.told(project)
    assert gate() == reasons
    assert promotion.judge_champion(project, "rrg", Display(Console(quiet=True))) == name
    assert recording.told(project) == made, "what the first gate has made is used"


def _export(folder: Path, card: dict[str, Any]) -> str:
    """Add the form of the weights that is registered; return its sha256."""
    weights = load_encoder(folder).state_dict()
    storage.write_bytes(folder / registry.WEIGHTS, safetensors.torch.save(weights))
    sha256 = storage.sha256_file(folder / registry.WEIGHTS)
    storage.write_json(folder / registry.CARD, {**card, "sha256": {registry.WEIGHTS: sha256}})
    return sha256
