"""Several processes as one: the same numbers, however many, and after any death."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from conftest import SIZES, write_project
from jobs import make_job
from others_at_work import free_port
from ruamel.yaml import YAML
from watched_computing import as_on_a_gpu

from lapvqa import storage
from lapvqa.errors import EXIT_INTERRUPTED, EXIT_USER
from lapvqa.machine import Machine, Training
from lapvqa.networks.device import choose_device
from lapvqa.params import PretrainParams
from lapvqa.pretrain import launch, train
from lapvqa.pretrain.checkpoint import Checkpoints
from lapvqa.pretrain.distributed import World, process_group
from lapvqa.pretrain.objectives.table import OBJECTIVES
from lapvqa.pretrain.trainer import Trainer
from lapvqa.project import Project
from lapvqa.recorder import Recorder

CPU = torch.device("cpu")
PARAMS = PretrainParams(
    model=SIZES, epochs=2, batch_size=4, lr=3e-3, warmup_steps=2, samples=2,
    checkpoint_every_steps=2, grad_clip=5.0,
)  # fmt: skip
STRATEGIES = ("ddp", "fsdp")
PIECES = 2  # of 2 rows: validation then has three batches, which two processes cannot share
STEPS = 6


def build(root: Path, objective: str, world: World, strategy: str) -> Trainer:
    params = PARAMS.model_copy(update={"objective": objective, "accumulate": PIECES // world.size})
    training = Training(strategy=strategy, loader_threads=0)
    return Trainer(params, train.read_corpus(Project(root)), CPU, world=world, training=training)


def take(trainer: Trainer, recorder: Recorder, until: int) -> None:
    """Take the steps up to ``until`` as the loop does."""
    for micro in trainer.steps(trainer.progress.step, until):
        trainer.take_step(micro, recorder)


def found(trainer: Trainer, path: Path) -> dict[str, object]:
    """Return the losses and what validation gives; keep the weights beside ``path``."""
    metrics = trainer.validate()
    weights = trainer.weights()
    if trainer.world.is_main:
        path.with_suffix(".pt").parent.mkdir(parents=True, exist_ok=True)
        torch.save(weights, path.with_suffix(".pt"))
    return {"losses": [one.loss for one in trainer.progress.history], "metrics": metrics}


def move(root: Path, trainer: Trainer, recorder: Recorder, until: int) -> None:
    """Continue from the newest state in root/moved, and leave another there."""
    with Checkpoints(root / "moved", keep=9) as checkpoints:
        state = train.newest_state(checkpoints, trainer.world)
        if state is not None:
            trainer.load_state(state)
        trainer.world.require_same("step", trainer.progress.step)
        take(trainer, recorder, until)
        state = trainer.state()
        if trainer.world.is_main:
            checkpoints.save(until, state)
    trainer.world.gather(None)  # the state is on disk before anyone reads it


def losses_in_bf16(root: Path, world: World, strategy: str, recorder: Recorder) -> list[float]:
    """Return the losses of steps in the precision that a GPU has: autocast, and FSDP's blocks."""
    with as_on_a_gpu():
        trainer = build(root, "captioning", world, strategy)
        take(trainer, recorder, 3)
    if strategy == "fsdp":
        kept = {one.dtype for one in trainer.model.parameters()}
        assert kept == {torch.float32}, kept
    return [one.loss for one in trainer.progress.history]


def several(root: Path) -> None:
    """Do, as one of the processes that torchrun started, all that the tests below compare."""
    with process_group(CPU) as world:
        recorder = Recorder(root / f"{world.rank}.jsonl", stage="pretrain", quiet=True)
        results = {}
        for objective in OBJECTIVES:
            for strategy in STRATEGIES:
                trainer = build(root, objective, world, strategy)
                take(trainer, recorder, STEPS)
                name = f"{objective}-{strategy}"
                results[name] = found(trainer, root / "found" / name)
                if name == "captioning-fsdp":
                    train.samples.append(trainer, root / "samples-fsdp.jsonl")
        for strategy in STRATEGIES:
            results[f"bf16-{strategy}"] = losses_in_bf16(root, world, strategy, recorder)
        group: Any = dist.group.WORLD
        results["limit"] = group._get_backend(CPU).options._timeout.total_seconds()
        for strategy, until in (("ddp", 4), ("fsdp", 6)):
            move(root, build(root, "contrastive", world, strategy), recorder, until)
        if world.is_main:
            (root / "results.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which one process, then two, then one, did the same steps."""
    root = tmp_path_factory.mktemp("together")
    write_project(root)
    torch.set_num_threads(1)
    recorder = Recorder(root / "one.jsonl", stage="pretrain", quiet=True)
    alone = {}
    for objective in OBJECTIVES:
        trainer = build(root, objective, World(), "ddp")
        take(trainer, recorder, STEPS)
        alone[objective] = found(trainer, root / "found" / objective)
        if objective == "captioning":
            train.samples.append(trainer, root / "samples.jsonl")
        if objective == "contrastive":
            take(trainer, recorder, 8)
            alone["straight"] = found(trainer, root / "found" / "straight")
    move(root, build(root, "contrastive", World(), "ddp"), recorder, 2)
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, str(root)]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trainer = build(root, "contrastive", World(), "ddp")
    move(root, trainer, recorder, 8)
    alone["moved"] = found(trainer, root / "found" / "moved")
    (root / "alone.json").write_text(json.dumps(alone))
    return root


def compare(root: Path, one: str, other: str) -> None:
    """Check losses to 1e-5, what validation found relatively, weights to 1e-4."""
    results = {
        **json.loads((root / "alone.json").read_text()),
        **json.loads((root / "results.json").read_text()),
    }
    assert results[other]["losses"] == pytest.approx(results[one]["losses"], abs=1e-5)
    assert results[other]["metrics"] == pytest.approx(results[one]["metrics"], rel=1e-5)
    first, second = (torch.load(root / "found" / f"{name}.pt") for name in (one, other))
    assert first.keys() == second.keys()
    for name, weight in first.items():
        difference = (weight - second[name]).abs()
        if name.endswith(("qkv.bias", "kv.bias")):
            # A bias of keys moves no attention: its gradient is rounding, which AdamW enlarges.
            third = len(difference) // (3 if name.endswith("qkv.bias") else 2)
            keys = slice(third, 2 * third) if name.endswith("qkv.bias") else slice(0, third)
            difference[keys] = 0
        assert difference.max() < 1e-4, name


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_give_what_one_gives(together: Path, objective: str, strategy: str) -> None:
    compare(together, objective, f"{objective}-{strategy}")


@pytest.mark.slow
def test_a_state_moves_from_one_to_two_to_sharded_and_back(together: Path) -> None:
    """Steps 1-2 in one process, 3-4 in two, 5-6 in two with FSDP2, 7-8 in one."""
    compare(together, "straight", "moved")


@pytest.mark.slow
def test_sharded_parameters_write_the_same_samples(together: Path) -> None:
    assert (together / "samples-fsdp.jsonl").read_text() == (together / "samples.jsonl").read_text()


@pytest.mark.slow
def test_sharded_blocks_in_bf16_lose_nothing_against_autocast(together: Path) -> None:
    results = json.loads((together / "results.json").read_text())
    exact = results["captioning-fsdp"]["losses"][:3]
    for strategy in STRATEGIES:
        assert results[f"bf16-{strategy}"] == pytest.approx(exact, rel=5e-3)
        assert results[f"bf16-{strategy}"] != exact
    assert results["bf16-fsdp"] != results["bf16-ddp"]  # the policy was in force


@pytest.mark.slow
def test_processes_wait_longer_than_a_slow_disk_takes(together: Path) -> None:
    assert json.loads((together / "results.json").read_text())["limit"] >= 3600


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether local.yaml says auto or cuda; nothing is ever put on the first one instead."""
    touched: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *_, device: touched.append(device))
    for named in ("auto", "cuda"):
        machine = Machine.model_validate({"device": named, "training": {"processes": 4}})
        chosen = [choose_device(machine, rank) for rank in range(4)]
        assert [device.index for device in chosen] == [0, 1, 2, 3]
    assert [device.index for device in touched] == [0, 1, 2, 3]
    alone = choose_device(Machine(device="cuda"))
    assert alone.type == "cuda"


def test_processes_that_see_different_things_are_told_so() -> None:
    class Two(World):
        def gather(self, value: object) -> list[object]:
            return [value, "another"]

    with pytest.raises(Exception, match=r"expected the same run.*a in process 0, another in proc"):
        Two().require_same("run", "a")


# The stage, as `dvc repro` starts it.


def parallel_project(root: Path, *, training: dict[str, object], **changes: object) -> Project:
    """Write a project whose local.yaml asks for several processes."""
    project = write_project(root)
    yaml = YAML()
    params = yaml.load(Path(__file__).parents[2] / "params.yaml")
    section = {**PARAMS.model_dump(mode="json"), "batch_size": 6, "samples": 0, **changes}
    params["pretrain"] = section
    yaml.dump(params, project.params)
    yaml.dump({"device": "cpu", "workers": 1, "training": training}, project.local)
    return project


def start(project: Project, module: str = "lapvqa.stage", *arguments: str) -> subprocess.Popen[str]:
    """Start a module in the project, its output kept in out.txt."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    with (project.root / "out.txt").open("a") as out:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=project.root, stdout=out, stderr=out, text=True, env=environment,
        )  # fmt: skip


def output(project: Project) -> str:
    return (project.root / "out.txt").read_text()


def processes(project: Project, *words: str) -> list[int]:
    """Return the ids of processes that run in the project, with ``words`` in their command."""
    ids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                where = (entry / "cwd").readlink()
                command = (entry / "cmdline").read_bytes().decode()
            except OSError:  # it ended meanwhile, or is not ours
                continue
            if where == project.root.resolve() and all(word in command for word in words):
                ids.append(int(entry.name))
    return sorted(ids)


def wait_for(condition: Callable[[], object], *, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.01)


def newest(project: Project) -> int:
    """Return the step of the newest state."""
    states = project.work_dir("pretrain").glob("*/state-*.json")
    return max((int(path.stem.removeprefix("state-")) for path in states), default=0)


def die_at(project: Project, step: int, by: signal.Signals) -> int:
    """Start the stage, send it a signal at a step, see that all processes end; return its code."""
    stage = start(project, "lapvqa.stage", "pretrain")
    wait_for(lambda: newest(project) >= step or stage.poll() is not None, seconds=100)
    assert len(processes(project, "pretrain.worker")) == 2, output(project)
    os.kill(stage.pid, by)
    wait_for(lambda: not processes(project, "lapvqa"), seconds=60)
    return stage.wait()


def outcome(project: Project) -> dict[str, str]:
    folder = project.model_dir("captioning")
    return {name: storage.sha256_file(folder / name) for name in ("model_best.pt", "history.csv")}


@pytest.mark.slow
def test_killed_in_any_way_two_processes_end_with_the_same_bytes(tmp_path: Path) -> None:
    """The stage interrupted, the stage killed, a process killed: then as if nothing had been."""
    long = {"epochs": 40, "checkpoint_every_steps": 3}
    training = {"processes": 2, "restarts": 3}
    straight = parallel_project(tmp_path / "a", training=training, **long)
    assert start(straight, "lapvqa.stage", "pretrain").wait(200) == 0, output(straight)

    killed = parallel_project(tmp_path / "b", training=training, **long)
    assert die_at(killed, 3, signal.SIGINT) == EXIT_INTERRUPTED, output(killed)
    assert die_at(killed, newest(killed) + 3, signal.SIGKILL) == -signal.SIGKILL
    reached = newest(killed)
    stage = start(killed, "lapvqa.stage", "pretrain")
    wait_for(lambda: newest(killed) > reached or stage.poll() is not None, seconds=100)
    os.kill(processes(killed, "pretrain.worker")[-1], signal.SIGKILL)
    assert stage.wait(200) == 0, output(killed)

    assert outcome(killed) == outcome(straight)
    said = output(killed)
    assert said.count("a training process died; all start again") == 1
    assert said.count("continuing at step") == 3
    for noise in ("OMP_NUM_THREADS", "Traceback", "Warning", "====="):
        assert noise not in said, said
    lines = [json.loads(line) for line in killed.record("pretrain").read_text().splitlines()]
    steps = [one["step"] for one in lines if one["kind"] == "metrics" and "loss" in one["values"]]
    total = len((killed.model_dir("captioning") / "history.csv").read_text().splitlines()) - 1
    assert set(steps) == set(range(min(steps), total + 1))
    assert [one["kind"] for one in lines].count("start") == 1
    assert lines[-1]["kind"] == "summary"


@pytest.mark.slow
def test_an_error_of_a_process_is_the_stage_s_and_is_not_tried_again(tmp_path: Path) -> None:
    project = parallel_project(tmp_path, training={"processes": 2, "restarts": 3}, batch_size=5)
    stage = start(project, "lapvqa.stage", "pretrain")
    assert stage.wait(100) == EXIT_USER
    said = output(project)
    assert "ConfigError: a batch of 5 cannot be cut into 2 processes" in said
    assert "what to do: set pretrain.batch_size to 4 or 6" in said
    assert "start again" not in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_two_nodes_train_as_one(tmp_path: Path) -> None:
    """The second node's command is the one in docs/training.md; both see the project's folder."""
    training = {"nodes": 2, "processes": 1, "rendezvous": f"127.0.0.1:{free_port()}"}
    nodes = parallel_project(tmp_path / "nodes", training=training, batch_size=4)
    stage = start(nodes, "lapvqa.stage", "pretrain")
    second = start(nodes, "lapvqa.pretrain.launch")
    assert stage.wait(150) == 0, output(nodes)
    assert second.wait(150) == 0, output(nodes)
    alone = write_project(tmp_path / "alone")
    recorder = Recorder(alone.record("pretrain"), stage="pretrain", quiet=True)
    params = PARAMS.model_copy(update={"samples": 0})
    train.run(params, make_job(alone, Machine(workers=1, device="cpu"), recorder))
    losses = []
    for project in (nodes, alone):
        with (project.model_dir("captioning") / "history.csv").open() as handle:
            losses.append([float(row["loss"]) for row in csv.DictReader(handle)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    facts = [json.loads(line) for line in nodes.record("pretrain").read_text().splitlines()]
    assert [one["values"]["processes"] for one in facts if one["kind"] == "facts"] == [2]


def test_a_launcher_by_hand_needs_further_nodes(tmp_path: Path) -> None:
    project = parallel_project(tmp_path, training={"processes": 2})
    assert start(project, "lapvqa.pretrain.launch").wait(60) == EXIT_USER
    assert "training.nodes is 1" in output(project)


def test_torchrun_is_asked_for_what_local_yaml_says() -> None:
    assert not launch.needs_torchrun(Machine())
    cluster = Training(processes=8, nodes=2, rendezvous="node0:29500", restarts=1)
    assert launch.needs_torchrun(Machine(training=cluster))
    asked = launch.torchrun_arguments(cluster)
    assert "--rdzv-endpoint=node0:29500" in asked
    assert {"--nnodes=2", "--nproc-per-node=8", "--max-restarts=1"} < set(asked)
    assert "--standalone" in launch.torchrun_arguments(Training(processes=2))


def test_rates_are_those_of_all_processes_and_mfu_of_one(tmp_path: Path) -> None:
    write_project(tmp_path)
    meter = build(tmp_path, "captioning", World(), "ddp").meter
    step = {"seconds": 0.5, "waited": 0.1, "images": 4, "positions": 40, "targets": 30}
    one, four = meter.measure(**step), meter.measure(**step, processes=4)
    assert one["images_per_s"] == 8
    assert four["images_per_s"] == 32
    assert four["tokens_per_s"] == 4 * one["tokens_per_s"]
    assert math.isclose(four["mfu"], one["mfu"])


if __name__ == "__main__":
    several(Path(sys.argv[1]))
