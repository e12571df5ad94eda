"""What a question of lineage costs at 400,000 files, 500 runs and 100 models, beside DuckDB.

A project of that size is written straight away: ledger (chained, with a training's bitmaps each),
dvc.lock, inventory, images.parquet, tokens, row numbers. Then each question is asked in this
process with the index opened anew each time (median of several), and as a command in a process of
its own, start and all. DuckDB (requirements/benchmarks.in) has the same tables in a file of its own
and answers the same recursive questions in the same run, alternating.

    python benchmarks/bench_lineage.py [FILES]     default: 400000
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap
from ruamel.yaml import YAML

from lapvqa import storage
from lapvqa.lineage import difference, impact, index, ledger, reasons, story, walk
from lapvqa.lineage.ledger import CODE, RUN, TRAINED_ON, Draft
from lapvqa.lineage.row_numbers import packed
from lapvqa.lineage.runs import Run, code_listing
from lapvqa.project import Project
from lapvqa.schemas import IMAGES, INVENTORY
from lapvqa.uptodate import manifest

REPOSITORY = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "lineage-cpu.json"
RUNS, MODELS, SHARDS, REPEATS = 500, 100, 800, 7
STUDIES, PATIENTS = 0.57, 0.1625  # per file: 228,000 and 65,000 of 400,000
PARAMS = {f"group.value{number}": number / 7 for number in range(40)}


def md5(*facts: object) -> str:
    return hashlib.md5(repr(facts).encode()).hexdigest()


def keys(kind: str, count: int) -> list[str]:
    return [hashlib.sha256(f"{kind}{number}".encode()).hexdigest()[:16] for number in range(count)]


def write_tables(project: Project, files: int) -> tuple[list[str], list[str]]:
    """Write inventory, images, tokens and row numbers; return the keys of patients and studies."""
    patients, studies = keys("patient", int(files * PATIENTS)), keys("study", int(files * STUDIES))
    study_of = np.sort(np.random.default_rng(0).integers(0, len(studies), files))
    patient_of = study_of * len(patients) // len(studies)
    per_shard = -(-files // SHARDS)
    numbers = np.arange(files)
    columns: dict[str, Any] = {
        "image_key": keys("image", files),
        "study_key": [studies[n] for n in study_of],
        "patient_key": [patients[n] for n in patient_of],
        "split": ["test" if n % 20 == 0 else "train" for n in patient_of],
        "shard": [f"images-{md5('shard', n // per_shard)[:16]}.arrow" for n in numbers],
        "row": numbers % per_shard,
        "file_sha256": [hashlib.sha256(f"file{n}".encode()).hexdigest() for n in numbers],
    }  # fmt: skip
    for field in IMAGES:
        if field.name not in columns:
            columns[field.name] = ["x" if pa.types.is_string(field.type) else 0] * files
    table = pa.table(
        {name: pa.array(columns[name], IMAGES.field(name).type) for name in IMAGES.names}
    )
    storage.write_table(project.images, table, IMAGES)
    listed = {
        "path": [f"files/{n}.dcm" for n in numbers],
        "size": numbers + 1000,
        "mtime_ns": numbers,
    }
    storage.write_table(project.inventory("source"), pa.table(listed, schema=INVENTORY), INVENTORY)
    for start in range(0, len(studies), 65536):
        part = pa.table({"study_key": studies[start : start + 65536]})
        project.tokens_dir.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, project.tokens_dir / f"tokens-{start}.parquet")
    project.row_numbers.mkdir(parents=True)
    for kind, names in (("patient", patients), ("study", studies)):
        (project.row_numbers / f"{kind}.txt").write_text("\n".join(names) + "\n")
    return patients, studies


def write_history(project: Project, patients: int, studies: int) -> None:
    """Write 500 runs, a fifth of them trainings; the latest of each stage stands in dvc.lock."""
    inventory = hashlib.md5(project.inventory("source").read_bytes()).hexdigest()
    random = np.random.default_rng(1)
    latest: dict[str, tuple[str, Run]] = {}
    started = 1e9
    # Code of a hundred files a stage, of which now and then one changes.
    listing = {f"lapvqa/file{n}.py": md5("code", n) for n in range(100)}

    def write(stage: str, deps: list[str], outs: dict[str, str], generation: int, **of: Any) -> str:
        nonlocal started
        started += 3600
        listing["lapvqa/file0.py"] = md5("code", generation)
        code = code_listing(listing)
        made = {
            path: (run_id, run.outs[path]) for run_id, run in latest.values() for path in run.outs
        }
        files = {
            path: {"bytes": 1000, "sha256": hashlib.sha256(digest.encode()).hexdigest()}
            for path, digest in outs.items()
        }
        run = Run(
            stage, started, 1800.0, outs=outs, params={**PARAMS, "generation": generation},
            deps={path: made[path][1] for path in deps},
            sources={path: made[path][0] for path in deps},
            files=files, code=code["digest"], commit=md5("commit", generation) + "0" * 8,
            prefect_flow_run=md5("flow", generation), prefect_task_run=md5("task", started),
            mlflow_run=md5("mlflow", started), environment={"python": "3.11", "host": "node"}, **of,
        )  # fmt: skip
        known = {entry["digest"] for entry in told_code}
        drafts = [Draft(RUN, run.payload(), started)]
        if code["digest"] not in known:
            told_code.append(code)
            drafts.insert(0, Draft(CODE, code, started))
        run_id = ledger.extend(project, lambda _: drafts)[-1]
        latest[stage] = (run_id, run)
        return run_id

    told_code: list[dict[str, Any]] = []
    shards = {f"data/images/shard-{n}.arrow": md5("shard", n) for n in range(SHARDS)}
    generations = MODELS
    grown: dict[str, str] = {}
    for generation in range(generations):
        if generation % 2 == 0:  # new studies came: inventory, ingest and tokens ran too
            grown = dict(list(shards.items())[: SHARDS * (generation + 2) // generations])
            last = generation == generations - 2
            write("inventory", [], {"data/inventory": inventory if last else md5("i", generation)},
                  generation)  # fmt: skip
            outs = {"data/images": md5("images", generation) + ".dir", **grown,
                    "data/images.parquet": md5("table", generation),
                    "data/studies.parquet": md5("studies", generation)}  # fmt: skip
            write("ingest", ["data/inventory"], outs, generation)
        model = f"models/captioning/model_best-{generation % 2}.pt"
        run_id = write("pretrain", [*grown, "data/images.parquet"], {
            model: md5("model", generation), "models/captioning/epochs": md5("epochs") + ".dir",
        }, generation)  # fmt: skip
        share = 0.5 + 0.5 * generation / generations
        ledger.append(project, TRAINED_ON, {
            "run": run_id, "path": "members.parquet",
            "roles": {"train": {
                "patients": packed(BitMap(np.flatnonzero(random.random(patients) < share))),
                "studies": {str(times): packed(BitMap(
                    np.flatnonzero(random.random(studies) < share / 2))) for times in (30, 60)},
            }},
        })  # fmt: skip
        weights = "models/captioning/encoder.safetensors"
        write("export", [model], {weights: md5("weights", generation)}, generation)
        for task in ("nih14", "chexpert"):
            outs = {f"results/{task}/{name}": md5(task, name, generation)
                    for name in ("metrics.json", "predictions.parquet", "extra")}  # fmt: skip
            metrics = {f"trained.auc/{n}{end}": n / 100 for n in range(15)
                       for end in ("", ".low", ".high")}  # fmt: skip
            write(f"evaluate@{task}", [weights, "data/images.parquet"], outs, generation,
                  metrics=metrics)  # fmt: skip
    write_lock(project, {stage: run for stage, (_, run) in latest.items()}, listing)


def write_lock(project: Project, runs: dict[str, Run], code: dict[str, str]) -> None:
    """Write dvc.lock as DVC would, and a dvc.yaml that fits it."""
    stages, declared = {}, {}
    for stage, run in runs.items():
        deps = {**run.deps, **code}
        stages[stage] = {
            "cmd": "x",
            "deps": [{"path": path, "md5": digest} for path, digest in deps.items()],
            "outs": [{"path": path, "md5": digest} for path, digest in run.outs.items()],
            "params": {"params.yaml": run.params},
        }
        declared[stage] = {"cmd": "x", "deps": list(deps), "outs": list(run.outs)}
    yaml = YAML()
    with project.dvc_lock.open("w") as file:
        yaml.dump({"schema": "2.0", "stages": stages}, file)
    with project.dvc_yaml.open("w") as file:
        yaml.dump({"stages": declared}, file)
    shutil.copy(REPOSITORY / "params.yaml", project.root)


def seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return round(statistics.median(spent), 4)


UP = """WITH RECURSIVE up(run) AS (
    SELECT {start} UNION
    SELECT a.run FROM up JOIN used u ON u.run = up.run JOIN artefacts a ON a.artefact = u.artefact)
SELECT count(*) FROM artefacts a JOIN up ON a.run = up.run"""
DOWN = """WITH RECURSIVE down(run) AS (
    SELECT {start} UNION
    SELECT u.run FROM down JOIN artefacts a ON a.run = down.run
    JOIN used u ON u.artefact = a.artefact)
SELECT count(*) FROM artefacts a JOIN down ON a.run = down.run"""
FILES = "SELECT count(*) FROM films WHERE split = 'train'"


def beside_duckdb(project: Project, folder: Path) -> dict[str, Any]:
    """Ask both engines the same, over the same tables; open, then one query, each time."""
    try:
        import duckdb
    except ImportError:
        return {"not measured": "duckdb is not installed (requirements/benchmarks.in)"}
    source, copy = (
        sqlite3.connect(project.lineage_index),
        duckdb.connect(str(folder / "peer.duckdb")),
    )
    for table in ("artefacts", "used", "films"):
        names = [row[1] for row in source.execute(f"PRAGMA table_info({table})")]
        rows = source.execute(f"SELECT * FROM {table}").fetchall()
        arrow = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
        copy.register("arrow", arrow)
        copy.execute(f"CREATE TABLE {table} AS SELECT * FROM arrow")
        copy.unregister("arrow")
    copy.close()
    first, last = (
        source.execute(
            f"SELECT {which}(run) FROM runs WHERE stage = ? AND run >= 0", (stage,)
        ).fetchone()[0]
        for which, stage in (("min", "ingest"), ("max", "evaluate@nih14"))
    )
    questions = {"up": UP.format(start=last), "down": DOWN.format(start=first), "files": FILES}
    found: dict[str, Any] = {"version": version("duckdb")}
    for name, question in questions.items():
        answers = {}
        for engine, connect in (
            ("sqlite", lambda: sqlite3.connect(project.lineage_index)),
            ("duckdb", lambda: duckdb.connect(str(folder / "peer.duckdb"), read_only=True)),
        ):

            def ask(connect: Callable[[], Any] = connect, question: str = question) -> Any:
                database = connect()
                answer = database.execute(question).fetchone()[0]
                database.close()
                return answer

            answers[engine] = (ask(), seconds(ask))
        assert answers["sqlite"][0] == answers["duckdb"][0], (name, answers)
        found[name] = {
            "rows": answers["sqlite"][0],
            **{f"{engine}_s": spent for engine, (_, spent) in answers.items()},
        }
        print(f"{name}: {found[name]}", flush=True)
    return found


def command(project: Project, *arguments: str) -> dict[str, float]:
    """Return what a whole `lapvqa lineage` costs in a process of its own: wall and CPU seconds.

    On a machine with other work beside it, the wall clock says little of the code.
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ask = [sys.executable, "-P", "-m", "flows.cli", "lineage", *arguments, "--json"]

    def run() -> None:
        subprocess.run(ask, cwd=project.root, env=environment, check=True, capture_output=True)

    run()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = seconds(run, 3)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 3
    return {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2)}


def main(files: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        project = Project(Path(scratch) / "project")
        project.root.mkdir()
        patients, studies = write_tables(project, files)
        write_history(project, len(patients), len(studies))
        manifest.remember(project)  # as each run does at its end
        print("written", flush=True)
        began = time.perf_counter()
        index.rebuild(project)
        rebuild = round(time.perf_counter() - began, 2)
        with index.opened(project) as database:
            counts = {
                table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("runs", "artefacts", "used", "films", "trained_on", "token_rows")
            }
            one = database.execute("SELECT file_sha256, patient_key FROM films WHERE row = 1 AND "
                                   "split = 'train'").fetchone()  # fmt: skip
            runs = [row[0] for row in database.execute(
                "SELECT id FROM runs WHERE stage = 'export' ORDER BY started")]  # fmt: skip

        def opening() -> None:
            with index.opened(project):
                pass

        questions: dict[str, Callable[[], object]] = {
            "open": opening,
            "up, metric": lambda: walk.trace(project, "nih14.auc/3"),
            "up, run 1 of 100": lambda: walk.trace(project, runs[0]),
            "down, patient": lambda: impact.follow(project, one[1], person=True),
            "down, film": lambda: impact.follow(project, one[0]),
            "down, shard's folder": lambda: impact.follow(project, "data/images"),
            "diff of two models": lambda: difference.compare(
                project, runs[0], runs[-1], paired=False
            ),
            "why": lambda: reasons.why(project, "pretrain"),
            "log": lambda: story.tell(project, limit=20),
        }
        asked = {}
        for name, question in questions.items():
            question()
            asked[name] = seconds(question)
            print(f"{name}: {asked[name]} s", flush=True)
        commands = {
            "up, metric": command(project, "nih14.auc/3"),
            "patient": command(project, "patient", one[1]),
            "diff": command(project, "diff", runs[0], runs[-1], "--quick"),
            "log": command(project, "log"),
        }
        print(f"commands: {commands}", flush=True)
        run = Run("tokens", 3e9, 1.0)
        ledger.append(project, RUN, run.payload())
        began = time.perf_counter()
        opening()
        result = {
            "what": __doc__.splitlines()[0] if __doc__ else "",
            "date": time.strftime("%Y-%m-%d"), "load_average": os.getloadavg()[0],
            "cores": os.cpu_count(), "files": files,
            "versions": {"python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version,
                         "pyroaring": version("pyroaring"), "pyarrow": version("pyarrow")},
            "rows": counts, "rebuild_s": rebuild,
            "open_after_one_entry_s": round(time.perf_counter() - began, 3),
            "index_mb": round(project.lineage_index.stat().st_size / 1e6, 1),
            "ledger_mb": round((project.ledger.stat().st_size
                                + project.ledger_payloads.stat().st_size) / 1e6, 1),
            "questions_s": asked, "whole_commands": commands,
            "beside_duckdb": beside_duckdb(project, Path(scratch)),
        }  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400_000)
