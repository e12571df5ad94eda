"""What a person asks about: a file, a metric, a run, a model, a digest, a patient, to one start.

A raw id is turned into its keyed hash and never said again, in no answer and no error.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.lineage import dvc_cache, registered
from lapvqa.lineage.origins import EVALUATION, Origin, Origins
from lapvqa.lineage.row_numbers import PATIENT, STUDY, RowNumbers
from lapvqa.lineage.runs import as_asked
from lapvqa.project import Project
from lapvqa.uptodate import hashes

ARTEFACT, METRIC, RUN, MODEL, FILM, LISTED = (
    "artefact", "metric", "run", "model", "film", "listed",
)  # fmt: skip
"""Kinds of targets, beside PATIENT and STUDY. LISTED: a file of an input folder that is no film."""

_HASHED_AT_MOST = 64 << 20
_HEX = re.compile(r"[0-9a-f][0-9a-f-]{5,}")

_IDS = {
    "ledger entry": ("runs", "id"),
    "Prefect flow run": ("runs", "prefect_flow_run"),
    "Prefect task run": ("runs", "prefect_task_run"),
    "MLflow run": ("runs", "mlflow_run"),
    "MLflow pipeline run": ("runs", "mlflow_pipeline_run"),
    "commit": ("runs", "commit_sha"),
    "md5": ("artefacts", "md5"),
    "sha256": ("artefacts", "sha256"),
    "file of the archive (sha256)": ("films", "file_sha256"),
    "image": ("films", "image_key"),
    STUDY: ("films", "study_key"),
    PATIENT: ("films", "patient_key"),
}  # fmt: skip


_ALIASES = {
    "champion": "`lapvqa gate` judges what was exported and makes it champion",
    "candidate": "`lapvqa run` registers what it exported",
}


class Key(NamedTuple):
    """One artefact as one run left it."""

    path: str
    """Relative to the project."""
    md5: str
    run: str | None
    """Id of the run that made it; None for what no stage made."""


@dataclass(frozen=True)
class Target:
    """A question, answered with where to start."""

    asked: str
    """As asked, but never a raw id."""
    kind: str
    artefacts: tuple[Key, ...] = ()
    runs: tuple[int, ...] = ()
    """Numbers of the runs that were asked for themselves."""
    key: str | None = None
    """Of a patient, study or film (image_key)."""
    file: str = ""
    """The file within a folder of ``artefacts`` that was asked for."""
    metric: str | None = None
    """Name of the metric asked for."""
    value: Any = None
    """Its value per system, as metrics.json has it."""
    remark: str = ""
    """What the reader must know, such as a file that was changed by hand."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        artefacts = [key._asdict() for key in self.artefacts]
        return {**vars(self), "artefacts": artefacts, "runs": list(self.runs)}


def find(project: Project, database: sqlite3.Connection, asked: str) -> Target:
    """Return what ``asked`` means; ConfigError with the nearest known names otherwise."""
    return _Finder(project, database).find(asked)


def find_person(project: Project, database: sqlite3.Connection, asked: str) -> Target:
    """Return the patient or study with this raw or hashed id; ConfigError does not repeat it."""
    target = _Finder(project, database).person(asked)
    if target is None:
        raise ConfigError(
            "nobody is called so: no table and no training of this project has this id",
            hint="write it as PatientID in the DICOM header (MIMIC-CXR: subject_id), or the key "
            "that stands in data/images.parquet; the key that hides ids must be that of ingest",
        )
    return target


class _Finder:
    def __init__(self, project: Project, database: sqlite3.Connection) -> None:
        self._project, self._database = project, database
        self._origins = Origins(database)
        self._fault: ConfigError | None = None
        """What is to be said of a path if it is nothing else either."""

    def find(self, asked: str) -> Target:
        # A raw id may look like the beginning of a digest, so people come before these.
        finders: tuple[Callable[[str], Target | None], ...] = (
            self._model, self._stage, self._run_id, self._metric, self._path, self._folder,
            self.person, self._prefix, self._listed,
        )  # fmt: skip
        for finder in finders:
            target = finder(asked)
            if target is not None:
                return target
        raise self._fault or self._unknown(asked)

    # A model, a stage, a run

    def _model(self, asked: str) -> Target | None:
        """Return a registered model: models:/NAME/VERSION, NAME@ALIAS, or the alias alone."""
        versions = registered.versions(self._project, self._database)
        bare = asked.removeprefix("models:/")
        for version in versions:
            aliases = {
                name for alias in version.aliases for name in (f"{version.name}@{alias}", alias)
            }
            if bare in {f"{version.name}/{version.version}", *aliases}:
                return self._of_version(asked, version)
        if bare == asked:
            return None
        known = [f"models:/{v.name}/{v.version}" for v in versions]
        known += [f"models:/{v.name}@{alias}" for v in versions for alias in v.aliases]
        near = difflib.get_close_matches(asked, known, n=3, cutoff=0.3) or known[:5]
        raise ConfigError(
            f"no registered model is called {asked!r}",
            hint=f"known: {', '.join(near)}" if near else "no encoder is registered yet",
        )

    def _of_version(self, asked: str, version: registered.Version) -> Target:
        keys = self._keys("sha256 = ?", version.sha256)
        if not keys and version.mlflow_run:
            keys = self._keys("mlflow_run = ?", version.mlflow_run)
        if not keys:
            raise ConfigError(
                f"{version.title} was registered, but no run in the ledger left its weights",
                hint="the ledger of the project that trained it knows more: `lapvqa bundle` there",
            )
        return Target(asked, MODEL, keys[:1], remark=version.title)

    def _stage(self, asked: str) -> Target | None:
        origin = self._origins.present(asked) if asked != EVALUATION else None
        return self._of_runs(asked, [origin]) if origin else None

    def _run_id(self, asked: str) -> Target | None:
        columns = [column for table, column in _IDS.values() if table == "runs"]
        where = " OR ".join(f"{column} = ?" for column in columns)
        rows = self._database.execute(
            f"SELECT run FROM runs WHERE {where} ORDER BY started, run", [asked] * len(columns)
        )
        origins = [self._origins.at(row[0]) for row in rows]
        return self._of_runs(asked, [o for o in origins if o]) if origins else None

    def _of_runs(self, asked: str, origins: list[Origin]) -> Target:
        keys = [Key(*out, o.id) for o in origins for out in o.run.outs.items()]
        failed = [o for o in origins if not o.run.outs]
        remark = "; ".join(f"{o.stage} {o.run.outcome} and left nothing" for o in failed)
        return Target(asked, RUN, tuple(keys), tuple(o.number for o in origins), remark=remark)

    # A metric

    def _metric(self, asked: str) -> Target | None:
        path, _, name = asked.rpartition(":")
        if not path:
            task, _, name = asked.partition(".")
            folder = f"evaluations/{task}" if "/" in task else f"results/{task}"
            path = f"{folder}/metrics.json"
        made = (self._made(relative) for relative in self._readings(path)) if name else ()
        key = next(filter(None, made), None)
        if key is None:
            return None
        value = self._value(key, name)
        return Target(asked, METRIC, (key,), metric=name, value=value, remark=self._remark(key))

    def _value(self, key: Key, name: str) -> Any:
        """Return the metric by system: from the file if it is that one, else from the ledger."""
        path = self._project.root / key.path
        file = path if path.exists() else dvc_cache.stored(self._project, key.md5)
        if file is not None:
            return _in_file(json.loads(file.read_bytes()), name, Path(key.path).parent.name)
        origin = self._origins.by_id(key.run)
        values = origin.run.metrics if origin else {}
        systems = {
            metric.removesuffix(f".{name}")
            for metric in values
            if metric.endswith(f".{name}") and not metric.startswith(f".{name}")
        }
        if not systems and values:
            raise _no_metric(name, {_without_system(one) for one in values}, key.path)
        ends = {"value": "", "low": ".low", "high": ".high"}
        return {
            system: {end: values.get(f"{system}.{name}{of}") for end, of in ends.items()}
            for system in sorted(systems - {f"{a}-{b}" for a in systems for b in systems})
        }

    # A path

    def _path(self, asked: str) -> Target | None:
        for relative in self._readings(asked):
            try:
                target = self._at(relative)
            except ConfigError as error:
                self._fault = self._fault or error
                continue
            if target is not None:
                return target
        return None

    def _at(self, relative: str) -> Target | None:
        """Return what lies at a path of the project; ConfigError as ``_within`` says."""
        key = self._made(relative) or self._within(relative)
        if key is not None:
            file = relative.removeprefix(f"{key.path}/") if relative != key.path else ""
            part = f"{relative} is part of {key.path}" if file else ""
            remark = "; ".join(filter(None, [part, self._remark(key)]))
            return Target(relative, ARTEFACT, (key,), file=file, remark=remark)
        row = self._one("SELECT path, md5 FROM inputs WHERE path = ? ORDER BY run DESC", relative)
        if row is not None:
            return Target(relative, ARTEFACT, (Key(row["path"], row["md5"], None),))
        for row in self._database.execute("SELECT run FROM present"):
            origin = self._origins.at(row["run"])
            md5 = self._origins.code_files(origin).get(relative) if origin else None
            if md5 is not None:
                return Target(relative, ARTEFACT, (Key(relative, md5, None),))
        return None

    def _folder(self, asked: str) -> Target | None:
        """Return the outputs beneath a folder; models/ may be left out: `captioning`."""
        for folder in [*self._readings(asked), f"models/{asked.rstrip('/')}"]:
            keys = self._keys("substr(a.path, 1, ?) = ?", len(folder) + 1, f"{folder}/")
            first = {key.path: key for key in reversed(keys)}
            if first:
                return Target(folder, ARTEFACT, tuple(first[path] for path in sorted(first)))
        return None

    def _made(self, path: str) -> Key | None:
        """Return an output by its path: dvc.lock's, else the one that the latest run left."""
        row = self._one(
            "SELECT a.path, a.md5, runs.id FROM artefacts a JOIN runs USING (run) "
            "LEFT JOIN present p ON p.run = a.run WHERE a.path = ? "
            "ORDER BY p.run IS NULL, started DESC, a.run DESC", path,
        )  # fmt: skip
        return None if row is None else Key(*row)

    def _within(self, path: str) -> Key | None:
        """Return the folder around a file; ConfigError for one that is in no version of it."""
        rows = self._database.execute(
            "SELECT a.path, a.md5, runs.id FROM artefacts a JOIN runs USING (run) "
            "LEFT JOIN present p ON p.run = a.run "
            "WHERE substr(?, 1, length(a.path) + 1) = a.path || '/' "
            "ORDER BY p.run IS NULL, started DESC, a.run DESC", (path,),
        )  # fmt: skip
        names: dict[str, None] = {}
        first, listed = None, {}
        for row in rows:
            key = Key(*row)
            first = first or key
            name = path.removeprefix(f"{key.path}/")
            if key.md5 not in listed:
                listed[key.md5] = self._names_in(key, present=key is first)
            inside = listed[key.md5]
            if inside is None:
                continue
            if name in inside or any(one.startswith(f"{name}/") for one in inside):
                return key
            names |= dict.fromkeys(inside)
        if first is None or not names:
            return first  # no list of the folder is here: it cannot be told
        name = path.removeprefix(f"{first.path}/")
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or sorted(names)[:3]
        raise ConfigError(
            f"{first.path} holds no {name}, in no version that is known here",
            hint=f"of its {len(names)} files the nearest: {', '.join(near)}",
        )

    def _names_in(self, key: Key, *, present: bool) -> set[str] | None:
        """Return the files of a folder as a run left it: of DVC's cache, else of the disk."""
        known = dvc_cache.listing(self._project, key.md5)
        if known is None and present:
            folder = self._project.root / key.path
            stats = hashes.stat_artefact(folder, hashes.ignored_names(self._project))
            known = None if stats is None else dict.fromkeys(stats, "")
        return None if known is None else set(known)

    def _remark(self, key: Key) -> str:
        """Say what is different on this disk, as far as that is told in a moment."""
        present = self._one(
            "SELECT 1 FROM present JOIN runs USING (run) WHERE id = ?", key.run
        ) or (key.run is not None and key.path.startswith("evaluations/"))
        if not present:
            return f"{key.path} was made by another run since; this is what an earlier one left"
        from lapvqa.uptodate import manifest

        known = manifest.load(self._project)
        hasher = hashes.Hasher(
            self._project, known.artefacts if known else {}, budget=_HASHED_AT_MOST
        )
        try:
            now = hasher.md5(key.path)
        except hashes.TooMuchToHashError:
            return ""
        if now is None:
            return f"{key.path} is not on this disk; this is what dvc.lock says of it"
        if now != key.md5:
            return f"{key.path} on this disk differs from what dvc.lock names; this is dvc.lock's"
        return ""

    def _readings(self, path: str) -> list[str]:
        """Return a path from where one stands, then from the project's folder, as the ledger does.

        What is nowhere on this disk may be known all the same, so either is looked up.
        """
        root = Path(os.path.normpath(self._project.root))
        read = (Path(os.path.normpath(above / path)) for above in (Path.cwd(), root))
        inside = [one.relative_to(root).as_posix() for one in read if one.is_relative_to(root)]
        return list(dict.fromkeys(inside))

    # A digest or an id, whole or its beginning

    def _prefix(self, asked: str) -> Target | None:
        text = asked.lower().removeprefix("sha256:").removeprefix("md5:")
        if not _HEX.fullmatch(text.removesuffix(".dir")):
            return None
        found = {(what, value) for what, value in self._beginning_with(text)}
        whole = {(what, value) for what, value in found if value == text}
        candidates = sorted(whole or found)
        if not candidates:
            return None
        if len(candidates) > 1:
            names = ", ".join(f"{what} {self._short(value)}" for what, value in candidates[:8])
            more = f" and {len(candidates) - 8} more" if len(candidates) > 8 else ""
            raise ConfigError(
                f"{text} begins the names of {len(candidates)} things: {names}{more}",
                hint="write one of them out",
            )
        return self._of_id(*candidates[0])

    def _beginning_with(self, text: str) -> Iterator[tuple[str, str]]:
        for what, (table, column) in _IDS.items():
            rows = self._database.execute(
                f"SELECT DISTINCT {column} FROM {table} WHERE {column} >= ? AND {column} < ? "
                "LIMIT 20", (text, f"{text}~"),
            )  # fmt: skip
            yield from ((what, row[0]) for row in rows)

    def _short(self, value: str) -> str:
        return value if len(value) <= 16 else f"{value[:16]}..."

    def _of_id(self, what: str, value: str) -> Target:
        table, column = _IDS[what]
        if table == "runs":
            target = self._run_id(value)
            assert target is not None
            return target
        if table == "artefacts":
            keys = self._keys(f"{column} = ?", value)
            paths = dict.fromkeys(key.path for key in keys)
            of_each = [next(key for key in keys if key.path == path) for path in paths]
            others = len(keys) - len(of_each)
            remark = f"{others} more runs left the same bytes" if others else ""
            return Target(value, ARTEFACT, tuple(of_each), remark=remark)
        if what in (PATIENT, STUDY):
            return Target(value, what, key=value)
        row = self._one(f"SELECT image_key FROM films WHERE {column} = ?", value)
        assert row is not None
        return Target(value, FILM, key=row["image_key"])

    def _keys(self, where: str, *values: object) -> tuple[Key, ...]:
        """Return artefacts, dvc.lock's own before others, later ones before earlier."""
        rows = self._database.execute(
            f"SELECT a.path, a.md5, runs.id FROM artefacts a JOIN runs USING (run) "
            f"LEFT JOIN present p ON p.run = a.run WHERE {where} "
            "ORDER BY p.run IS NULL, started DESC, a.artefact", values,
        )  # fmt: skip
        return tuple(Key(*row) for row in rows)

    # A person, and files of the input folders

    def person(self, asked: str) -> Target | None:
        asked = asked.strip()
        keyring = self._keyring()
        tries: list[tuple[str, str]] = [(PATIENT, asked), (STUDY, asked)]
        if keyring is not None:
            for raw in dict.fromkeys([asked, asked.lstrip("pP")]):
                tries.append((PATIENT, keyring.patient(raw)))
            for raw in dict.fromkeys([asked, asked.lstrip("sS")]):
                tries.append((STUDY, keyring.study(raw)))
        for kind, key in tries:
            if self._is_known(kind, key):
                return Target(key, kind, key=key)
        if keyring is not None:
            key = keyring.image(asked)
            if self._one("SELECT 1 FROM films WHERE image_key = ?", key):
                return Target(key, FILM, key=key)
        return None

    def _is_known(self, kind: str, key: str) -> bool:
        """Tell whether a table or a training knows a key, other data sets' patients too."""
        numbered = RowNumbers(self._project, kind).keys()
        return bool(
            self._one(f"SELECT 1 FROM films WHERE {kind}_key = ?", key)
            or key in numbered
            or (kind == PATIENT and self._one("SELECT 1 FROM predicted WHERE patient = ?", key))
        )

    def _keyring(self) -> Any:
        """Return what ingest hashed ids with; None without its key (which is not made here)."""
        from lapvqa.identity import DEMO_KEY, Keyring
        from lapvqa.params import load_params
        from lapvqa.project import DEMO_MARK
        from lapvqa.uptodate import input_folders

        try:
            keep_ids = load_params(self._project.params).ingest.deid.keep_ids
            places = input_folders.places(self._project)
        except ConfigError:
            return None
        demo = (Path(places.folders["source"]) / DEMO_MARK).is_file()
        if demo and not places.key_is_named:
            return Keyring(DEMO_KEY, keep_ids=keep_ids)
        try:
            return Keyring(Path(places.key_file).read_bytes().strip(), keep_ids=keep_ids)
        except OSError:
            return Keyring(b"", keep_ids=True) if keep_ids else None

    def _listed(self, asked: str) -> Target | None:
        """Return a file of an input folder: by its bytes the film, else what became of it."""
        from lapvqa.uptodate import input_folders

        try:
            folders = input_folders.places(self._project).folders
        except ConfigError:
            return None
        for name, folder in folders.items():
            whole = Path(os.path.normpath(Path.cwd() / asked))
            inside = whole.is_relative_to(folder)
            if Path(asked).is_absolute() and not inside:
                continue
            path = whole.relative_to(folder).as_posix() if inside else Path(asked).as_posix()
            file = Path(folder) / path
            if file.is_file() and (name == "source" or inside):
                return self._of_file(name, path, file)
        return None

    def _of_file(self, name: str, path: str, file: Path) -> Target:
        sha256 = storage.sha256_file(file)
        row = self._one("SELECT image_key FROM films WHERE file_sha256 = ?", sha256)
        if row is not None:
            return Target(sha256, FILM, key=row["image_key"])
        remark = self._fate(path, sha256) if name == "source" else ""
        inventory = self._made("data/inventory")
        listing = f"data/inventory/{name}.parquet"
        keys = () if inventory is None else (inventory._replace(path=listing),)
        listed = f"a file of the input folder {name}"
        return Target(sha256, LISTED, keys, remark=", ".join(filter(None, [listed, remark])))

    def _fate(self, path: str, sha256: str) -> str:
        """Say what ingest made of a file that is no film."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        if self._project.rejects.exists():
            by = (pc.field("file") == path) | (pc.field("sha256") == sha256)
            for row in pq.read_table(self._project.rejects, filters=by).to_pylist():
                return f"rejected by {row['stage']}: {row['reason']}"
        if self._project.companions.exists():
            found = pq.read_table(self._project.companions, filters=pc.field("path") == path)
            for row in found.to_pylist():
                return f"no image and no reject: {row['what']}"
        return "not listed at the last run"

    # Nothing of all that

    def _unknown(self, asked: str) -> ConfigError:
        shown = as_asked(asked)
        files, metrics, stages = self._names()
        if not files:
            return ConfigError(
                f"nothing is known of {shown}: no stage has run yet", hint="run `lapvqa run` first"
            )
        if asked in _ALIASES:
            return ConfigError(f"there is no {asked} yet", hint=_ALIASES[asked])
        near = difflib.get_close_matches(asked, [*files, *metrics, *stages])
        hint = f"did you mean {' or '.join(near)}?"
        if not near:
            hint = (
                f"ask for a file ({', '.join(files[:3])} ...), a metric "
                f"({', '.join(metrics[:1]) or 'TASK.METRIC'}), a stage or a run id"
            )
        return ConfigError(f"{shown} is no file, metric or run that this project made", hint=hint)

    def _names(self) -> tuple[list[str], list[str], list[str]]:
        """Return what may be asked for by a name: files and their folders, metrics, stages."""
        rows = self._database.execute("SELECT DISTINCT path FROM artefacts ORDER BY path")
        paths = [row[0] for row in rows]
        folders = dict.fromkeys(str(Path(path).parent) for path in paths)
        present = self._database.execute("SELECT run FROM present").fetchall()
        origins = [origin for row in present if (origin := self._origins.at(row[0]))]
        metrics = {
            f"{origin.stage.partition('@')[2]}.{_without_system(name)}": None
            for origin in origins
            for name in origin.run.metrics
            if "@" in origin.stage
        }
        return [*paths, *folders], list(metrics), [origin.stage for origin in origins]

    def _one(self, question: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.execute(question, values).fetchone()
        return row


def _in_file(metrics: dict[str, Any], name: str, task: str) -> Any:
    systems = metrics.get("systems", {})
    by_system = {system: values[name] for system, values in systems.items() if name in values}
    if by_system:
        return by_system
    if name in metrics:
        return metrics[name]
    raise _no_metric(name, {metric for values in systems.values() for metric in values}, task)


def _without_system(name: str) -> str:
    return name.removesuffix(".low").removesuffix(".high").partition(".")[2]


def _no_metric(name: str, known: set[str], task: str) -> ConfigError:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    listed = f"metrics: {', '.join(sorted(known)) or 'none'}"
    hint = f"did you mean {near[0]}?" if near else listed
    return ConfigError(f"{task} has no metric {as_asked(name)}", hint=hint)
