"""One of the processes that torchrun starts: python -m lapvqa.pretrain.worker, in the project.

torch is imported late: what must not be outlived, and an error that is known, come before.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lapvqa import runtime, storage
from lapvqa.config import load_machine
from lapvqa.errors import EXIT_INTERRUPTED, LapvqaError
from lapvqa.layout import Layout
from lapvqa.params import load_params
from lapvqa.pretrain.launch import PARENT, failure_file
from lapvqa.recorder import Recorder


def main() -> int:
    """Train as one of several; keep the error that a restart would only meet again."""
    runtime.die_with_parent(int(os.environ[PARENT]))
    layout = Layout(Path.cwd())
    failure = failure_file(layout)
    if failure.exists():  # this is a restart after an error that is there to stay: end them all
        return 0
    recorder = _recorder(layout, int(os.environ["RANK"]))
    try:
        _train(layout, recorder)
    except LapvqaError as error:
        facts = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        storage.write_json(failure, facts)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        recorder.close()
    return 0


def _train(layout: Layout, recorder: Recorder) -> None:
    from lapvqa.pretrain.device import choose_device
    from lapvqa.pretrain.distributed import joined, lost_another
    from lapvqa.pretrain.train import train

    params, machine = load_params(layout.params).pretrain, load_machine(layout)
    if int(os.environ["TORCHELASTIC_RESTART_COUNT"]):
        recorder.say("a training process died; all start again")
    with joined(choose_device(machine, int(os.environ["LOCAL_RANK"]))) as world:
        try:
            train(params, layout, machine, recorder, world)
        except RuntimeError as error:
            if not lost_another(error):
                raise
            # Its traceback would say nothing but where this one waited; torchrun says who died.
            sys.stderr.write(f"pretrain: process {world.rank} lost another one\n")
            sys.exit(1)


def _recorder(layout: Layout, rank: int) -> Recorder:
    """Return the stage's records for the main process; the others' stay beside the states."""
    if rank == 0:
        return Recorder(layout.record("pretrain"), stage="pretrain", proceed=True)
    path = layout.work_dir("pretrain") / f"rank-{rank}.jsonl"
    return Recorder(path, stage="pretrain", quiet=True)


if __name__ == "__main__":
    sys.exit(main())
