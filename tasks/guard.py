"""Run a command that never outlives its starter: ``python -m tasks.guard PARENT COMMAND...``.

`dvc repro` killed by SIGKILL leaves its stage running, and a stage may have workers of its own.
This process leads their process group; the kernel tells it of the starter's death (however it
died), and it takes the whole group down. It returns the command's exit code.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import NoReturn

from lapvqa.runtime import die_with_parent


def _kill_group(_signal: int, _frame: FrameType | None) -> NoReturn:
    os.killpg(os.getpgrp(), signal.SIGKILL)
    raise SystemExit  # not reached: this process is in the group


def _wait_on(_signal: int, _frame: FrameType | None) -> None:
    """Let the command end by itself on SIGINT; SIG_IGN would be inherited by it."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code, 128 + signal if a signal ended it."""
    parent, command = int(arguments[0]), arguments[1:]
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, _kill_group)
    signal.signal(signal.SIGINT, _wait_on)
    die_with_parent(parent, by=signal.SIGTERM)
    code = subprocess.Popen(command).wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
