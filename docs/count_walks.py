"""Count the files that five walks through the code pass: python docs/count_walks.py FINISHED.

A walk has a beginning (a command) and ends. What it passes is measured in a copy of the finished
project (of `lapvqa demo`): every file of the project on the stack when an end is reached and, where
the end is a function to be read (``inside``), every file in which it calls something.
docs/architecture.md has the walks and the numbers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOMS = ("lapvqa", "tasks", "flows")
TRACER = r"""
import os, sys, threading
_ROOT, _OUT = os.environ["WALK_ROOT"], os.environ["WALK_OUT"]
_ENDS, _INSIDE = (set(os.environ[name].split()) for name in ("WALK_ENDS", "WALK_INSIDE"))
_FILES, _KNOWN, _ENTERED = set(), {}, {}

def _file(code):
    if code.co_filename not in _KNOWN:
        path = os.path.realpath(code.co_filename)
        inside = path.startswith(tuple(_ROOT + room for room in ("lapvqa/", "tasks/", "flows/")))
        _KNOWN[code.co_filename] = path[len(_ROOT):] if inside else ""
    return _KNOWN[code.co_filename]

def _pass(frame):
    file = _file(frame.f_code)
    if file and file not in _FILES and frame.f_code.co_flags & 1:  # of a function, not a class
        _FILES.add(file)
        with open(os.path.join(_OUT, str(os.getpid())), "a") as handle:  # it may be killed
            handle.write(file + "\n")

def _note(frame, event, argument):
    if event == "call":
        name = frame.f_code.co_qualname
        if name in _ENDS or name in _INSIDE and _file(frame.f_code):
            outer = frame
            while outer is not None:
                _pass(outer)
                outer = outer.f_back
            if name in _INSIDE:
                _ENTERED[id(frame)] = frame
        if _ENTERED:
            _pass(frame)
    elif event == "return":
        _ENTERED.pop(id(frame), None)

sys.setprofile(_note)
threading.setprofile(_note)
"""
PROGRAM = [sys.executable, "-m"]
# Walk -> (commands, ends, ends that are read to their last call)
WALKS = {
    "a DICOM file to a stored pixel": (
        [[*PROGRAM, "lapvqa.stage", "ingest"]],
        "write_shard",
        "process_file",
    ),
    "a report to a row of tokens": (
        [[*PROGRAM, "lapvqa.stage", "tokens"]],
        "",
        "target_text encode",
    ),
    "pretrain.lr to the optimizer": (
        [[*PROGRAM, "lapvqa.stage", "pretrain"]],
        "AdamW.__init__ load_params",
        "",
    ),
    "a prediction to metrics.json to the page": (
        [
            [*PROGRAM, "flows.cli", "score", "ad", "results/ad/predictions.parquet"],
            [*PROGRAM, "lapvqa.stage", "report"],
        ],
        "",
        "metrics_of make_section",
    ),
    "`lapvqa run` to a finished stage": (
        [[*PROGRAM, "flows.cli", "run", "--stage", "tokens"]],
        "Popen.__init__ run append",
        "",
    ),
}


def main(finished: Path, repository: Path) -> None:
    """Print the number of files of each walk, and the files."""
    with tempfile.TemporaryDirectory() as scratch:
        tracer = Path(scratch) / "tracer"
        tracer.mkdir()
        (tracer / "sitecustomize.py").write_text(TRACER)
        for number, (name, (commands, ends, inside)) in enumerate(WALKS.items()):
            project, notes = Path(scratch) / f"project-{number}", Path(scratch) / str(number)
            notes.mkdir()
            copy(finished, project, repository)
            if "run" in commands[0]:  # there has to be something to do
                params = project / "params.yaml"
                params.write_text(params.read_text().replace("max_length: 64", "max_length: 63"))
            environment = {
                **os.environ,
                "PYTHONPATH": f"{tracer}{os.pathsep}{repository}",
                "WALK_ROOT": f"{repository}{os.sep}",
                "WALK_OUT": str(notes),
                "WALK_ENDS": ends,
                "WALK_INSIDE": inside,
            }
            for command in commands:
                subprocess.run(
                    command, cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL
                )
            files = sorted({line for note in notes.iterdir() for line in note.read_text().split()})
            sys.stdout.write(f"{len(files)} {name}\n" + "".join(f"    {file}\n" for file in files))


def copy(finished: Path, project: Path, repository: Path) -> None:
    """Make a copy of the project that runs the repository's code and has its work yet to do."""
    ignored = shutil.ignore_patterns(".git", ".venv", "work", "dvc.yaml", *ROOMS, "tests")
    shutil.copytree(finished, project, symlinks=True, ignore=ignored)
    for room in (*ROOMS, "dvc.yaml"):
        (project / room).symlink_to(repository / room)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else here)
