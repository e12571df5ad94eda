"""Start torchrun as a child of the stage: several processes train, and die with it.

`python -m lapvqa.pretrain.launch ARGUMENTS` is torchrun that dies with its parent; on the second
and further nodes of a cluster the same is started by hand, see docs/training.md.
"""

from __future__ import annotations

import subprocess
import sys

from lapvqa import errors, runtime, storage
from lapvqa.config import Machine
from lapvqa.layout import Layout

WORKER = "lapvqa.pretrain.worker"


def wanted(machine: Machine) -> bool:
    """Tell whether local.yaml asks for more than one process."""
    return machine.training.processes * machine.training.nodes > 1


def arguments(machine: Machine) -> list[str]:
    """Return torchrun's arguments for this node."""
    training = machine.training
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


def workers(layout: Layout, machine: Machine) -> None:
    """Run the processes to their end; what they print is printed here, line by line.

    Raises the error that one of them could not mend, TrainingError if they died otherwise.
    """
    failure = layout.work_dir("pretrain") / "failure.json"
    failure.unlink(missing_ok=True)
    command = [sys.executable, "-m", "lapvqa.pretrain.launch", *arguments(machine)]
    child = subprocess.Popen(command, cwd=layout.root)
    try:
        code = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if not code:
        return
    if failure.exists():
        facts = storage.read_json(failure, made_by="pretrain")
        raise getattr(errors, facts["error"])(facts["message"], hint=facts["hint"])
    raise errors.TrainingError(
        f"the {machine.training.processes} training processes ended with code {code}, after "
        f"{machine.training.restarts} restarts",
        hint="their last lines are above; the next run continues from the newest state",
    )


def main() -> None:
    """Be torchrun, and die with the stage."""
    runtime.die_with_parent()
    from torch.distributed.run import main as torchrun

    torchrun(sys.argv[1:])


if __name__ == "__main__":
    main()
