"""Start torchrun as a child of the stage: several processes train, and die with it.

`python -m lapvqa.pretrain.launch`, run in the project, is torchrun with the arguments that
local.yaml implies. The stage starts it on its own node; on every other node of a cluster the same
command is started by hand, see docs/training.md.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from lapvqa import errors, runtime, storage
from lapvqa.errors import EXIT_INTERRUPTED, EXIT_USER, ConfigError, LapvqaError
from lapvqa.job import Job
from lapvqa.machine import Machine, Training, load_machine
from lapvqa.project import Project

WORKER = "lapvqa.pretrain.worker"
PARENT_VARIABLE = "LAPVQA_PARENT_PID"
"""Environment variable: the id of the process that a launcher, or a worker, must not outlive."""


def needs_torchrun(machine: Machine) -> bool:
    """Tell whether local.yaml asks for more than one process."""
    return machine.training.processes * machine.training.nodes > 1


def failure_file(project: Project) -> Path:
    """Return where a worker writes the error that ended it, for the stage and for its restarts."""
    return project.work_dir("pretrain") / "failure.json"


def torchrun_arguments(training: Training) -> list[str]:
    """Return torchrun's arguments for a node."""
    meeting = (
        ["--standalone"]
        if training.nodes == 1
        else ["--rdzv-backend=c10d", f"--rdzv-endpoint={training.rendezvous}", "--rdzv-id=lapvqa"]
    )
    return [
        f"--nnodes={training.nodes}",
        f"--nproc-per-node={training.processes}",
        f"--max-restarts={training.restarts}",
        *meeting,
        "-m",
        WORKER,
    ]


def run_workers(job: Job) -> None:
    """Run the processes to their end; their output is that of this process.

    Raises the error that ended one of them, TrainingError if they died otherwise.
    """
    failure = failure_file(job.project)
    failure.unlink(missing_ok=True)
    child = subprocess.Popen(
        [sys.executable, "-m", "lapvqa.pretrain.launch"],
        cwd=job.project.root,
        env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
    )
    try:
        code = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if failure.exists():
        facts = storage.read_json(failure, made_by="pretrain")
        raise getattr(errors, facts["error"])(facts["message"], hint=facts["hint"])
    if code:
        raise errors.TrainingError(
            f"the training processes ended with code {code}, after "
            f"{job.machine.training.restarts} restarts",
            hint="their last lines are above; the next run continues from the newest state",
        )


def main() -> int:
    """Run torchrun for this node until the processes end, or the stage does."""
    stage = os.environ.get(PARENT_VARIABLE)
    if stage is not None:
        runtime.die_with_parent(int(stage))
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun would, and say so at length
    try:
        training = load_machine(Project(Path.cwd())).training
        if stage is None and training.nodes == 1:
            raise ConfigError(
                "local.yaml: training.nodes is 1, so there is no other node to start",
                hint="`lapvqa run` starts the processes of this one",
            )
        return _torchrun(torchrun_arguments(training))
    except LapvqaError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return EXIT_USER


def _torchrun(command_line: list[str]) -> int:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.run import parse_args, run

    # If it is shared, torch 2.13 keeps the store of a restarted group, in which its processes find
    # the addresses of those that died: they hang, or are refused. So each group has its own.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    try:
        run(parse_args(command_line))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = failure.signal_name() if failure.exitcode < 0 else f"code {failure.exitcode}"
        sys.stderr.write(f"training process {rank} ended with {how}\n")
        return 1
    except RendezvousError as error:
        sys.stderr.write(f"the nodes did not meet, or lost each other: {error}\n")
        return 1
    except (KeyboardInterrupt, SignalException):
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
