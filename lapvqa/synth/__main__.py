"""Write the demo archive: ``python -m lapvqa.synth ROOT [--patients N --studies N --seed S]``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from lapvqa import runtime
from lapvqa.errors import LapvqaError
from lapvqa.synth.archive import write_demo

_EVERY = 200
"""Images between two lines of progress."""


def main(arguments: list[str]) -> int:
    """Parse the command line, write the archive, return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lapvqa.synth", description=__doc__)
    parser.add_argument("root", type=Path, help="folder that receives the datasets")
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--studies", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=runtime.available_cores())
    chosen = parser.parse_args(arguments)
    started = time.monotonic()

    def show(done: int, total: int) -> None:
        if done % _EVERY == 0 or done == total:
            rate = done / (time.monotonic() - started)
            left = (total - done) / rate
            sys.stderr.write(f"{done}/{total} images, {rate:.0f}/s, {left:.0f} s left\n")

    try:
        counts = write_demo(
            chosen.root,
            patients=chosen.patients,
            studies=chosen.studies,
            seed=chosen.seed,
            workers=chosen.workers,
            on_progress=show,
        )
    except LapvqaError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    sys.stdout.write("".join(f"{name}: {count}\n" for name, count in counts.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
