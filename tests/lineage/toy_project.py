"""A toy project with the real one's shape, made by real DVC; tests/cli uses it too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from once import built_once

REPOSITORY = Path(__file__).parents[2]

DVC_YAML = """\
stages:
  inventory:
    cmd: python -P toy.py inventory
    always_changed: true
    params: [inventory]
    outs: [data/inventory]
  ingest:
    cmd: python -P toy.py ingest
    deps: [data/inventory/source.parquet, lapvqa/dicom]
    params: [ingest]
    outs: [data/studies.parquet]
  tokens:
    cmd: python -P toy.py tokens
    deps: [data/studies.parquet, lapvqa/text]
    params: [tokens]
    outs: [data/tokens]
  evaluate:
    foreach:
      probe_nih14: {data: data/inventory/nih14.parquet}
      rrg: {data: data/studies.parquet}
    do:
      cmd: python -P toy.py evaluate@${key}
      deps: ["${item.data}", data/tokens]
      params: [evaluate.common, "evaluate.${key}"]
      metrics: ["results/${key}/metrics.json"]
  report:
    cmd: python -P toy.py report
    deps: [results/probe_nih14/metrics.json, results/rrg/metrics.json]
    params: [report]
    outs: [reports/index.html]
"""

TOY = '''\
"""Stages that copy digests of their inputs: every change upstream changes their output."""
import hashlib, json, sys
from pathlib import Path
import pyarrow as pa
from lapvqa import storage
from lapvqa.inventory import scan
from lapvqa.params import read_yaml
from lapvqa.schemas import INVENTORY

def digest(*paths):
    state = hashlib.sha256()
    for path in paths:
        files = sorted(Path(path).rglob("*.*")) if Path(path).is_dir() else [Path(path)]
        for file in files:
            state.update(file.read_bytes())
    return state.hexdigest()

def write(path, *parts):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("\\n".join(str(part) for part in parts))

params = read_yaml(Path("params.yaml"))
name = sys.argv[1]
if name == "inventory":
    for key in ("source", "chexpert", "nih14"):
        folder = Path(params["inventory"][key])
        rows = sorted(scan(folder)) if folder.is_dir() else []
        columns = [list(column) for column in zip(*rows)] or [[], [], []]
        table = pa.table(columns, schema=INVENTORY)
        storage.write_table(Path("data/inventory") / f"{key}.parquet", table, INVENTORY)
elif name == "ingest":
    write("data/studies.parquet", digest("data/inventory/source.parquet"), params["ingest"])
elif name == "tokens":
    write("data/tokens/tokens-00000.parquet", digest("data/studies.parquet"), params["tokens"])
    write("data/tokens/tokens-00001.parquet", digest("lapvqa/text"))
elif name == "report":
    write("reports/index.html", digest("results"))
else:
    task = name.split("@")[1]
    found = {"digest": digest("data/tokens"), "mean_auc": 0.75, "task": task,
             "status": "not computed", "reason": "a toy"}
    storage.write_json(Path("results") / task / "metrics.json", found)
'''


def run_dvc(root: Path, *arguments: str) -> str:
    """Run DVC in ``root``; return what it printed."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def made(factory: pytest.TempPathFactory) -> Path:
    """Return the project as `dvc repro` left it, made once per test run, to be copied."""
    return built_once(factory, "lineage-toy", _make)


def _make(root: Path) -> None:
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "toy.py").write_text(TOY)
    shutil.copy(REPOSITORY / "params.yaml", root)
    shutil.copy(REPOSITORY / ".dvcignore", root)
    for path, text in {
        "lapvqa/dicom/read.py": "READ = 1\n",
        "lapvqa/text/sections.py": "SECTIONS = 1\n",
        "lapvqa/text/tokens.py": "TOKENS = 1\n",
        "lapvqa/text/__pycache__/tokens.pyc": "compiled",
        "demo/mimic-cxr/files/p10/s1/a.dcm": "a",
        "demo/mimic-cxr/files/p10/s1/b.dcm": "b",
        "demo/nih-cxr14/images/1.png": "1",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    run_dvc(root, "init", "--no-scm", "-q")
    run_dvc(root, "repro", "-q")
