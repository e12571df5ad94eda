"""What `lapvqa run` takes for one stale stage, beside `dvc repro -s` of it, and small commands.

In a copy of a finished project (a clone of this repository that has run `lapvqa demo`, any size):
the report is made stale by another parameter and brought up to date by DVC alone and by
`lapvqa run` in turns, each with its wall and the processor seconds of all its processes. Then the
commands that only look: seconds until the first line, and until the end.

    python benchmarks/bench_run.py PROJECT [TURNS]     default: 5
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "run-cpu.json"
LAPVQA, DVC = [sys.executable, "-m", "flows"], [sys.executable, "-m", "dvc"]
LOOKS = {
    "--help": ["--help"],
    "run, nothing to do": ["run"],
    "status": ["status"],
    "lineage up": ["lineage", "up", "data/images.parquet"],
    "embed, one PNG": ["embed", "film.png", "--out", "film.parquet"],
}
_EXAMPLES = re.compile(r"^(  examples: )(\d+)", re.MULTILINE)


def environment(project: Path) -> dict[str, str]:
    """Return one in which `python` is this one and the code is the project's."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(project), "DVC_NO_ANALYTICS": "1"}


def timed(command: list[str], project: Path) -> dict[str, float]:
    """Run a command that must succeed; return its seconds and its processes' processor seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(
        command, cwd=project, env=environment(project), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    first = time.monotonic() - began
    lines += process.stdout.readlines()
    if process.wait():
        raise SystemExit("".join(lines))
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"first line": first, "wall": wall, "processor": used}


def make_stale(project: Path) -> None:
    """Give the report another number of examples, and let DVC forget that it has made such one."""
    path = project / "params.yaml"
    text = path.read_text()
    other = {"8": "9"}.get(_EXAMPLES.findall(text)[0][1], "8")
    path.write_text(_EXAMPLES.sub(rf"\g<1>{other}", text, count=1))
    shutil.rmtree(project / ".dvc" / "cache" / "runs", ignore_errors=True)


def one_stage(project: Path, turns: int) -> dict[str, dict[str, list[float]]]:
    """Return the figures of each turn, DVC's and ours."""
    commands = {"dvc": [*DVC, "repro", "-s", "report"], "lapvqa": [*LAPVQA, "run"]}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in commands}
    for turn in range(turns):
        for name, command in commands.items():
            make_stale(project)
            figures = timed(command, project)
            for what in ("wall", "processor"):
                found[name].setdefault(what, []).append(round(figures[what], 2))
            load = os.getloadavg()[0]
            print(f"turn {turn + 1}, {name}: {figures['wall']:.1f} s, "
                  f"{figures['processor']:.1f} of processor time (load {load:.1f})")  # fmt: skip
    return found


def main(arguments: list[str]) -> None:
    """Measure, print, and keep the figures."""
    if not arguments:
        print("bench_run: not measured, it needs a finished project: bench_run.py PROJECT [TURNS]")
        return
    source, turns = Path(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 5
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch).resolve() / "project"
        shutil.copytree(source, project, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
        film = next((project / "demo").rglob("*.png"), None)
        if film is not None:
            shutil.copy(film, project / "film.png")
        timed([*LAPVQA, "run"], project)  # in its new place every file's hash is taken once
        turned = one_stage(project, turns)
        timed([*LAPVQA, "run"], project)
        looks = {}
        for name, words in LOOKS.items():
            if "film.png" in words and film is None:
                continue
            runs = [timed([*LAPVQA, *words], project) for _ in range(3)]
            looks[name] = {key: round(min(run[key] for run in runs), 2) for key in runs[0]}
            print(f"{name}: first line after {looks[name]['first line']:.2f} s, "
                  f"all {looks[name]['wall']:.2f} s")  # fmt: skip
    ratios = {
        what: round(statistics.median(turned["lapvqa"][what]) / statistics.median(of), 2)
        for what, of in turned["dvc"].items()
    }
    print(f"one stale report, lapvqa run : dvc repro -s = {ratios['wall']} by wall, "
          f"{ratios['processor']} by processor time")  # fmt: skip
    facts = {
        "date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count(), "load": os.getloadavg(),
        "versions": {name: version(name) for name in ("prefect", "mlflow", "dvc")},
        "one stale report": turned, "ratio of medians": ratios, "best of three": looks,
    }  # fmt: skip
    RESULT.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
