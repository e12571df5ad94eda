"""One of the processes that torchrun starts: `python -m lapvqa.pretrain.worker`, in the project.

torch is imported late: first the process ties its life to its parent's, and looks whether an
earlier start failed for good.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lapvqa import runtime, storage
from lapvqa.errors import EXIT_INTERRUPTED, LapvqaError
from lapvqa.job import Job, open_job
from lapvqa.params import load_params
from lapvqa.pretrain.launch import PARENT_VARIABLE, failure_file
from lapvqa.project import Project
from lapvqa.recorder import Recorder


def main() -> int:
    """Train as one of several processes; write down an error that a restart would only repeat."""
    runtime.die_with_parent(int(os.environ[PARENT_VARIABLE]))
    project = Project(Path.cwd())
    failure = failure_file(project)
    if failure.exists():  # a restart after an error that would come again: end without training
        return 0
    recorder = _recorder(project, int(os.environ["RANK"]))
    try:
        _train(open_job(project, recorder))
    except LapvqaError as error:
        facts = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        storage.write_json(failure, facts)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        recorder.close()
    return 0


def _train(job: Job) -> None:
    from lapvqa.networks.device import choose_device
    from lapvqa.pretrain.distributed import is_lost_peer, process_group
    from lapvqa.pretrain.train import train

    params = load_params(job.project.params).pretrain
    if int(os.environ["TORCHELASTIC_RESTART_COUNT"]):
        job.recorder.say("a training process died; all start again")
    with process_group(choose_device(job.machine, int(os.environ["LOCAL_RANK"]))) as world:
        try:
            train(params, job, world)
        except RuntimeError as error:
            if not is_lost_peer(error):
                raise
            # The traceback would only say where this process waited; torchrun says who died.
            sys.stderr.write(f"pretrain: process {world.rank} lost another one\n")
            sys.exit(1)


def _recorder(project: Project, rank: int) -> Recorder:
    """Return the stage's recorder for the main process; the others write beside the states."""
    if rank == 0:
        return Recorder(project.record("pretrain"), stage="pretrain", proceed=True)
    path = project.work_dir("pretrain") / f"rank-{rank}.jsonl"
    return Recorder(path, stage="pretrain", quiet=True)


if __name__ == "__main__":
    sys.exit(main())
