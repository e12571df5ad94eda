"""One run of the toy project, asked from all sides; then what can go wrong with it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable

import numpy as np
import pytest
from mlflow import MlflowClient
from running_toy import Finished, Toy, sync_records, wait_until

from flows.commands.run import run_pipeline
from lapvqa.errors import BusyError, ConfigError, MissingArtifactError
from lapvqa.lineage import ledger, recording, runs, walk
from lapvqa.lineage.recording import Commit
from lapvqa.uptodate import staleness
from lapvqa.uptodate.stagefile import locked
from tasks import ledger_lines
from tasks.mlflow_records.connection import connect, tracking_uri
from tasks.mlflow_records.registry import MODEL
from tasks.settling import register

pytestmark = [pytest.mark.slow]

STAGES = [
    "inventory", "ingest", "tokens", "pretrain", "export",
    "evaluate@probe_chexpert", "evaluate@rrg", "report",
]  # fmt: skip


@pytest.fixture(scope="module")
def toy(finished: tuple[Toy, Finished]) -> Toy:
    return finished[0]


@pytest.fixture(scope="module")
def client(toy: Toy):
    uri = f"sqlite:///{toy.project.mlflow_db}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture(scope="module")
def parent(finished: tuple[Toy, Finished], client):
    return client.get_run(finished[1].result["mlflow"])


@pytest.fixture(scope="module")
def children(client, parent):
    found = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    return {run.data.tags["dvc.stage"]: run for run in found}


# --- the run itself ---------------------------------------------------------------------------


def test_every_stage_runs_and_says_so(finished: tuple[Toy, Finished]) -> None:
    run = finished[1]
    assert run.code == 0, run.text
    assert run.result["stages"] == dict.fromkeys(STAGES, "ran")
    assert "Prefect: embedded" in run.text
    assert "MLflow: embedded" in run.text
    assert "tokens: something for the person" in run.text
    assert "one line" not in run.text, "a stage's own chatter belongs into the log"
    assert "Warning" not in run.text
    log = (finished[0].project.log("tokens")).read_text().splitlines()
    assert "one line" in log
    assert "and another" in log, "a line may end with a carriage return"


def test_nothing_of_it_is_left_running(toy: Toy) -> None:
    assert toy.processes() == []


def test_dvc_repro_leaves_the_same_lock(toy: Toy, new_toy: Callable[[], Toy]) -> None:
    other = new_toy()
    other.command("dvc", "repro")
    assert other.lock == toy.lock
    # What ran without us gets its line from what the stages themselves kept; once.
    assert ledger_lines.complete(other.project, Commit(None, None)) == STAGES
    assert ledger_lines.complete(other.project, Commit(None, None)) == []
    told = recording.told(other.project)
    ours = {run.stage: run.outs for run in recording.told(toy.project)}
    assert {run.stage: run.outs for run in told} == ours
    assert {run.mlflow_run for run in told} == {None}


def test_the_next_run_is_known_to_have_nothing_to_do(toy: Toy) -> None:
    stale = {s.name for s in staleness.check(toy.project) if s.stale}
    # The toy lists its input in a way of its own, so only its inventory cannot be judged.
    assert stale <= {"inventory"}


def test_the_ledger_has_a_line_per_stage(finished: tuple[Toy, Finished], children) -> None:
    toy, run = finished
    told = {run.stage: run for run in recording.told(toy.project)}
    assert sorted(told, key=STAGES.index) == STAGES  # side by side, they end in any order
    for name, lock in locked(toy.project).items():
        entry = told[name]
        assert (entry.deps, entry.outs, entry.params) == (lock.deps, lock.outs, lock.params)
        assert entry.prefect_flow_run == run.result["prefect"]
        assert entry.mlflow_run == children[name].info.run_id
        assert entry.dirty is False
        assert entry.commit is not None
        assert len(entry.commit) == 40
        assert set(entry.sources) == set(entry.deps), "each input names the run that made it"
    assert ledger.verify(toy.project) == []


# --- Prefect's history ------------------------------------------------------------------------


def test_prefect_keeps_the_whole_history(finished: tuple[Toy, Finished]) -> None:
    toy, run = finished
    flows = toy.history("select id, state_type, name from flow_run")
    assert [(flow[0], flow[1]) for flow in flows] == [(run.result["prefect"], "COMPLETED")]
    tasks = dict(toy.history("select name, state_type from task_run"))
    assert set(STAGES) <= set(tasks)
    assert set(tasks.values()) == {"COMPLETED"}
    assert 10 <= len(tasks) <= 16


def test_prefect_shows_results_links_and_progress(toy: Toy) -> None:
    keys = {key for (key,) in toy.history("select key from artifact")}
    assert keys >= {"results", "report", "mlflow-run", "progress-tokens", "progress-evaluate-rrg"}
    (table,) = toy.history("select data from artifact where key = 'results'")
    assert "0.900" in table[0]


def test_prefect_keeps_what_the_stages_say(toy: Toy) -> None:
    lines = {line for (line,) in toy.history("select message from log")}
    assert "tokens: something for the person" in lines
    assert not any(line.startswith("@@progress") for line in lines)


# --- MLflow's records -------------------------------------------------------------------------


def test_mlflow_has_a_child_per_stage(parent, children) -> None:
    assert parent.info.status == "FINISHED"
    assert set(children) == set(STAGES)
    assert parent.data.metrics["rrg.mean_auc"] == 0.9
    assert parent.data.metrics["rrg.mean_auc.low"] == 0.85
    assert parent.data.params["pretrain.lr"] == "0.001"
    assert {run.info.status for run in children.values()} == {"FINISHED"}


def test_mlflow_has_the_stages_metrics_with_their_times(client, children) -> None:
    losses = client.get_metric_history(children["pretrain"].info.run_id, "loss")
    assert [(one.step, one.value) for one in losses] == [(k, 1 / (k + 1)) for k in range(20)]
    info = children["pretrain"].info
    assert all(info.start_time <= one.timestamp <= info.end_time for one in losses)
    assert children["pretrain"].data.metrics["summary.files"] == 1
    assert children["pretrain"].data.tags["fact.device"] == "cpu"
    assert children["pretrain"].data.tags["summary.mode"] == "toy"


def test_mlflow_has_parameters_flat_and_of_this_stage_only(children) -> None:
    params = children["pretrain"].data.params
    assert params["pretrain.lr"] == "0.001"
    assert params["pretrain.model.depth"] == "4"
    assert all(key.startswith("pretrain.") for key in params)
    assert "evaluate.common.seed" in children["evaluate@rrg"].data.params


def test_mlflow_has_inputs_whose_digests_are_dvcs(toy: Toy, children) -> None:
    for name, lock in locked(toy.project).items():
        inputs = children[name].inputs.dataset_inputs
        assert {one.dataset.name: one.dataset.digest for one in inputs} == lock.deps


def test_mlflow_has_the_pictures_of_the_report(client, children) -> None:
    run_id = children["report"].info.run_id
    assert [one.path for one in client.list_artifacts(run_id, "pictures")] == ["pictures/rrg.svg"]
    assert not client.list_artifacts(children["tokens"].info.run_id, "pictures")


def test_mlflow_has_metrics_of_evaluations(children) -> None:
    metrics = children["evaluate@rrg"].data.metrics
    assert metrics["trained.mean_auc"] == 0.9
    assert metrics["trained.mean_auc.low"] == 0.85
    assert "untrained.mean_auc" not in metrics, "undefined is absent, never 0"


def test_tags_lead_to_git_dvc_and_prefect(
    finished: tuple[Toy, Finished], client, children, parent
) -> None:
    toy, run = finished
    path = "models/captioning/encoder.safetensors"
    md5 = locked(toy.project)["export"].outs[path]
    found = client.search_runs([parent.info.experiment_id], f"tags.`dvc.out.{path}` = '{md5}'")
    assert [one.info.run_id for one in found] == [children["export"].info.run_id]
    tags = found[0].data.tags
    assert tags["prefect.flow_run_id"] == run.result["prefect"]
    assert len(tags["git.commit"]) == 40
    assert tags["git.dirty"] == "false"


def test_the_encoder_is_registered_once_and_computes(
    toy: Toy, client, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from lapvqa.machine import Machine

    version = str(client.get_model_version_by_alias(MODEL, "candidate").version)
    assert register(toy.project, connect(toy.project, Machine())) == version
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 1
    uri = tracking_uri(toy.project, Machine())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # which the next line sets too, for good
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@candidate")
    (row,) = model.predict(model.input_example, params={"kind": "pooled"}).to_dict("records")
    assert np.shape(row["feature"]) == (4, 8)


def test_lineage_knows_the_alias_and_the_pipelines_own_run(toy: Toy, parent) -> None:
    (key,) = walk.trace(toy.project, f"models:/{MODEL}@candidate").target.artefacts
    assert key.path.endswith("encoder.safetensors")
    exported = {run.stage: run for run in recording.told(toy.project)}["export"]
    assert exported.outs[key.path] == key.md5
    made = walk.trace(toy.project, parent.info.run_id).target
    assert len(made.runs) == len(STAGES)
    assert toy.project.lineage_page.exists()


# --- the runs after it ------------------------------------------------------------------------


def test_a_run_with_nothing_to_do_leaves_no_trace(copied: Toy, parent) -> None:
    before = copied.lock
    run = copied.run()
    assert run.code == 0, run.text
    assert run.result["stages"] == dict.fromkeys(STAGES, "up to date")
    assert run.result["mlflow"] is None
    assert copied.lock == before
    assert len(recording.told(copied.project)) == len(STAGES)
    client = MlflowClient(tracking_uri=f"sqlite:///{copied.project.mlflow_db}")
    parents = client.search_runs([parent.info.experiment_id], "tags.`lapvqa.stage` = ''")
    assert len(parents) == 1


def test_a_stage_that_fails_ends_with_its_own_exit_code(copied: Toy) -> None:
    copied.trouble("tokens fail 3")
    params = copied.project.params
    params.write_text(params.read_text().replace("max_length: 64", "max_length: 65"))
    run = copied.run("tokens")
    assert run.code == 3, run.text
    assert "BudgetError: more rejects than allowed" in run.text
    assert ".lapvqa/logs/tokens.log" in run.text
    tasks = copied.history(
        "select state_type from task_run where name = 'tokens' order by start_time"
    )
    assert tasks == [("COMPLETED",), ("FAILED",)]
    flows = copied.history("select state_type from flow_run order by start_time")
    assert flows[-1] == ("FAILED",)
    assert locked(copied.project)["tokens"].params["tokens"]["max_length"] == 64


def test_a_stage_asked_for_brings_what_it_stands_on_up_to_date(copied: Toy) -> None:
    (copied.root / "input" / "second.dcm").write_text("pixels")
    run = copied.run("tokens")
    assert run.result["stages"] == dict.fromkeys(("inventory", "ingest", "tokens"), "ran")


def test_what_is_above_came_back_as_it_was(copied: Toy) -> None:
    """Then no `dvc repro` is started for what stands on it, and dvc.lock is that of `dvc repro`."""
    logs = {name: copied.project.log(name) for name in ("tokens", "pretrain")}
    before = {name: path.stat().st_mtime_ns for name, path in logs.items()}
    (copied.root / "data" / "studies.parquet").unlink()
    run = copied.run("pretrain")
    done = ("inventory", "ingest", "tokens", "pretrain")
    assert run.result["stages"] == dict.fromkeys(done, "up to date")
    assert run.result["reasons"]["ingest"] == "restored from DVC's cache"
    assert "pretrain: starts" in run.text
    assert {name: path.stat().st_mtime_ns for name, path in logs.items()} == before
    own = copied.lock
    copied.command("dvc", "repro")
    assert copied.lock == own


def test_what_was_written_over_through_a_hard_link_is_computed_again(copied: Toy) -> None:
    """DVC's cache has the same wrong bytes, which DVC would bring back; it keeps the right ones."""
    copied.command("dvc", "config", "cache.type", "hardlink")
    copied.command("dvc", "checkout", "--relink")
    cache = copied.root / ".dvc" / "cache" / "files" / "md5"
    md5s = locked(copied.project)["export"].outs
    weights = "models/captioning/encoder.safetensors"
    spoilt = cache / md5s[weights][:2] / md5s[weights][2:]
    good = {path: path.stat().st_ino for path in cache.rglob("*") if path.is_file()}
    right = spoilt.read_bytes()
    (copied.root / weights).chmod(0o644)
    with (copied.root / weights).open("r+b") as handle:
        handle.write(b"wrong")
    assert spoilt.read_bytes().startswith(b"wrong"), "one file by two names"
    run = copied.run("export")
    assert run.result["stages"]["export"] == "ran", run.text
    assert f"export: DVC's cache held other bytes of {weights} than it says" in run.text
    assert (copied.root / weights).read_bytes() == right == spoilt.read_bytes()
    kept = {path: path.stat().st_ino for path in good if path != spoilt}
    assert kept == {path: number for path, number in good.items() if path != spoilt}


def test_an_unknown_stage_names_the_nearest(toy: Toy) -> None:
    with pytest.raises(ConfigError, match="there is no stage 'token'") as caught:
        run_pipeline(toy.root, stage="token")
    assert caught.value.hint == "did you mean tokens?"


def test_a_stage_without_its_inputs_names_the_stage_that_makes_them(copied: Toy) -> None:
    from tasks.dvc_repository import load_graph
    from tasks.work import require_inputs

    graph = {node.name: node for node in load_graph(copied.root)}
    require_inputs(copied.root, graph["pretrain"], graph)
    shutil.rmtree(copied.root / "data" / "tokens")
    with pytest.raises(MissingArtifactError, match="expected data/tokens, found nothing") as caught:
        require_inputs(copied.root, graph["pretrain"], graph)
    assert "lapvqa run --stage tokens" in caught.value.hint


def test_a_killed_run_leaves_nothing_behind_and_the_next_one_continues(
    copied: Toy, new_toy: Callable[[], Toy]
) -> None:
    (copied.root / "input" / "second.dcm").write_text("more pixels")
    copied.trouble("pretrain hang")
    process = copied.start()
    wait_until((copied.project.state / "pids").exists)
    wait_until(lambda: copied.is_followed("pretrain"))
    assert len(copied.processes()) >= 6  # driver, server, guard, dvc, stage, its worker
    with pytest.raises(BusyError, match=f"process {process.pid}"):
        run_pipeline(copied.root)
    process.kill()
    process.communicate()
    wait_until(lambda: not copied.processes(), seconds=60)

    copied.trouble("")
    run = copied.run()
    assert run.code == 0, run.text
    assert run.result["stages"]["pretrain"] == "ran"
    assert run.result["stages"]["tokens"] == "up to date"
    flows = copied.history("select state_type from flow_run order by start_time")
    assert flows[-2:] == [("CRASHED",), ("COMPLETED",)]
    fresh = new_toy()
    (fresh.root / "input" / "second.dcm").write_text("more pixels")
    fresh.command("dvc", "repro")
    assert fresh.lock == copied.lock

    client = MlflowClient(tracking_uri=f"sqlite:///{copied.project.mlflow_db}")
    killed = client.search_runs(["1"], "attributes.status = 'KILLED'")
    assert {one.data.tags["lapvqa.stage"] for one in killed} == {"", "pretrain"}
    assert not client.search_runs(["1"], "attributes.status = 'RUNNING'")


@pytest.mark.parametrize("early", [False, True])
def test_an_interrupt_lets_the_stage_put_its_work_away(
    copied: Toy, early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM; and, before Prefect's server is up, SIGINT of a parent that ignored it (nohup)."""
    (copied.root / "input" / "second.dcm").write_text("more pixels")
    copied.trouble("ingest hang")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if early else None
    process = copied.start()
    if early:
        signal.signal(signal.SIGINT, before)
    wait_until((copied.project.state / "pids").exists)
    if not early:
        wait_until(lambda: copied.is_followed("ingest"))
    process.send_signal(signal.SIGINT if early else signal.SIGTERM)
    process.communicate(timeout=40)
    assert process.returncode == 130
    assert (copied.project.state / "put-away").exists()
    wait_until(lambda: not copied.processes(), seconds=60)
    flows = copied.history("select state_type from flow_run order by start_time")
    assert early or flows[-1] == ("CRASHED",)
    last = runs.of_entry(ledger.entries(copied.project)[-1])
    assert last is not None
    assert (last.stage, last.outcome) == ("ingest", "interrupted")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # another test's
    sync_records(copied.project)
    client = MlflowClient(tracking_uri=f"sqlite:///{copied.project.mlflow_db}")
    killed = client.search_runs(["1"], "attributes.status = 'KILLED'")
    assert {one.data.tags["lapvqa.stage"] for one in killed} == {"", "ingest"}


def test_an_interrupt_reaches_a_stage_that_another_thread_runs(copied: Toy) -> None:
    params = copied.project.params
    params.write_text(params.read_text().replace("bootstrap_draws: 1000", "bootstrap_draws: 999"))
    copied.project.local.write_text("execution: {stages_at_once: 2}\n")
    copied.trouble("evaluate@rrg hang")
    process = copied.start()
    wait_until((copied.project.state / "pids").exists)
    wait_until(lambda: copied.is_followed("evaluate@rrg"))
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 130, text
    assert "evaluate@probe_chexpert: starts" in text
    assert (copied.project.state / "put-away").exists()
    wait_until(lambda: not copied.processes(), seconds=60)
    (state,) = copied.history("select state_type from task_run where name = 'evaluate@rrg' "
                              "order by start_time desc limit 1")  # fmt: skip
    assert state == ("CRASHED",)
