"""Count the project's files that five walks pass: python docs/count_walks.py [REPOSITORY].

A walk is run in a small scratch project under a profiler that notes, in every process, each file of
the project in which a function is called. docs/architecture.md has the numbers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TRACER = r"""
import os, sys, threading
_ROOT, _OUT, _STOP = os.environ["WALK_ROOT"], os.environ["WALK_OUT"], os.environ.get("WALK_STOP")
_FILES, _KNOWN = set(), {}

def _note(frame, event, argument):
    if event != "call":
        return
    code = frame.f_code
    if code.co_filename not in _KNOWN:
        path = os.path.realpath(code.co_filename)
        _KNOWN[code.co_filename] = path[len(_ROOT):] if path.startswith(_ROOT) else ""
    file = _KNOWN[code.co_filename]
    if file and file not in _FILES and code.co_flags & 1:  # of a function, not a module or class
        _FILES.add(file)
        with open(os.path.join(_OUT, str(os.getpid())), "a") as handle:  # it may be killed
            handle.write(file + "\n")
    elif _STOP and _STOP == f"{frame.f_globals.get('__name__')}.{code.co_qualname}":
        os._exit(0)

sys.setprofile(_note)
threading.setprofile(_note)
"""
PROGRAM = [sys.executable, "-m"]
WALKS = {
    "a DICOM file to a stored pixel": [[*PROGRAM, "lapvqa.stage", "ingest"]],
    "a report to a row of tokens": [[*PROGRAM, "lapvqa.stage", "tokens"]],
    "pretrain.lr to the optimizer": [[*PROGRAM, "lapvqa.stage", "pretrain"]],
    "a prediction to metrics.json to the page": [
        [*PROGRAM, "flows.cli", "score", "ad", "results/ad/predictions.parquet"],
        [*PROGRAM, "lapvqa.stage", "report"],
    ],
    "`lapvqa run` to a finished stage": [[*PROGRAM, "flows.cli", "run", "--stage", "tokens"]],
}
STOP = {"pretrain.lr to the optimizer": "torch.optim.adamw.AdamW.__init__"}


def main(repository: Path, finished: Path) -> None:
    """Print the number of files of each walk, and the files."""
    with tempfile.TemporaryDirectory() as scratch:
        tracer = Path(scratch) / "tracer"
        tracer.mkdir()
        (tracer / "sitecustomize.py").write_text(TRACER)
        for number, (name, commands) in enumerate(WALKS.items()):
            notes = Path(scratch) / str(number)
            notes.mkdir()
            project = Path(scratch) / f"project-{number}"
            shutil.copytree(
                finished,
                project,
                symlinks=True,
                ignore=shutil.ignore_patterns(".git", ".venv", "lapvqa", "tasks", "flows", "tests"),
            )
            for room in ("lapvqa", "tasks", "flows", "dvc.yaml"):
                (project / room).unlink(missing_ok=True)
                (project / room).symlink_to(repository / room)
            shutil.rmtree(project / ".lapvqa" / "work", ignore_errors=True)
            subprocess.run(["git", "init", "-q"], cwd=project, check=True)
            if "run" in commands[0]:
                shutil.rmtree(project / "data" / "tokens")
            environment = {
                **os.environ, "PYTHONPATH": f"{tracer}{os.pathsep}{repository}",
                "WALK_ROOT": f"{repository}{os.sep}", "WALK_OUT": str(notes),
                "WALK_STOP": STOP.get(name, ""),
            }  # fmt: skip
            for command in commands:
                done = subprocess.run(
                    command,
                    cwd=project,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    sys.exit(
                        f"{name}: {command} ended with {done.returncode}\n{done.stderr[-3000:]}"
                    )
            files = sorted({line for note in notes.iterdir() for line in note.read_text().split()})
            sys.stdout.write(f"{len(files):3} {name}\n")
            if os.environ.get("WALK_LIST"):
                sys.stdout.write("".join(f"      {file}\n" for file in files))


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    main(Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else here, Path(sys.argv[1]).resolve())
