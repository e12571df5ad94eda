"""``lapvqa embed``, ``caption`` and ``ask``: films to features, reports and answers.

Paths are printed as they were given, on this terminal only. Nothing is kept but the table that is
asked for.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import chosen_model, own_files, terminal
from lapvqa.errors import EXIT_BAD_DATA, ConfigError, is_there, nothing_at
from lapvqa.machine import Machine, load_machine
from lapvqa.params import ComputingParams, Params, load_params
from lapvqa.project import Project

if TYPE_CHECKING:
    from lapvqa.dicom.reasons import Reason
    from lapvqa.inference.films import Film, Source


def embed(project: Project | None, films: list[Path], *, model: str | None, out: Path) -> int:
    """Write a table of features; EXIT_BAD_DATA if no film could be used."""
    sources = _found(films)
    from lapvqa.inference import table
    from lapvqa.inference.encoder import Encoder
    from tasks.display import counting

    own_files.require(out, "--out", "a table of an earlier time", own_files.holds(table.MARK))
    if out.suffix.lower() != table.SUFFIX:
        raise ConfigError(
            f"--out: expected a name that ends in {table.SUFFIX}, found {out.name}",
            hint="the table is Parquet, whatever its name; pandas.read_parquet reads it",
        )
    path, settings = chosen_model.find_finished(model, project), _settings(project)
    encoder = Encoder.load(path, **settings.reading)
    account = _Account()
    with counting(terminal.progress_console(), "embed", "films") as told:

        def each(film: Film) -> None:
            account.add(film)
            told(account.looked_at, len(sources))

        try:
            table.write(encoder, sources, out, each=each)
        except table.NoFilmError:
            account.close()
            raise
    console = terminal.console()
    console.print(
        f"{terminal.counted(account.taken, 'film')}, features of width {encoder.width} by "
        f"{encoder.about} ({encoder.digest[:12]}), in {out}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return account.close()


def caption(project: Project | None, films: list[Path], *, model: str | None, as_json: bool) -> int:
    """Print the report of each film; EXIT_BAD_DATA if no film could be used."""
    sources = _found(films)
    from lapvqa.inference.words import MAX_NEW_TOKENS, Captioner

    path, settings = chosen_model.find_finished(model, project), _settings(project)
    params = settings.params
    captioner = Captioner.load(
        path, **settings.reading,
        max_new_tokens=params.evaluate.rrg.max_new_tokens if params else MAX_NEW_TOKENS,
    )  # fmt: skip
    return _print(captioner.stream(sources), "report", as_json)


def ask(project: Project, films: list[Path], question: str, *, as_json: bool) -> int:
    """Print the answer about each film; EXIT_BAD_DATA if no film could be used."""
    sources = _found(films)
    from lapvqa.evaluation import task_table
    from lapvqa.inference.encoder import Encoder
    from lapvqa.inference.words import Answerer

    path = chosen_model.find_finished(None, project)
    encoder = Encoder.load(path, **_settings(project).reading)
    answerer = Answerer.load(encoder, project.result_dir(task_table.shown_as("answers")[0]))
    return _print(answerer.stream(sources, question), "answer", as_json)


def _found(films: list[Path]) -> list[Source]:
    """Return the films, folders looked through, before torch is imported: it takes seconds.

    Raises SourceError for a path at which nothing is, and for a folder without any film. A film may
    lie within a packed file.
    """
    for path in films:
        if not any(map(os.path.isfile, path.parents)) and not is_there(path):
            raise nothing_at(path, "a film or a folder")
    from lapvqa.inference.films import find

    return [source for _, source in find(films)]


@dataclass(frozen=True)
class _Settings:
    """``params``: the project's, None without one; ``reading``: how a model is to be opened."""

    params: Params | None
    reading: dict[str, Any]


def _settings(project: Project | None) -> _Settings:
    """Read them, and compute from here on as the evaluations do: the same bits on one machine."""
    from lapvqa.networks.device import open_computer

    machine, params = Machine(), None
    if project is not None:
        machine, params = load_machine(project), load_params(project.params)
    computer = open_computer(machine, params.computing if params else ComputingParams())
    reading = {"machine": machine, "computer": computer}
    return _Settings(params, {**reading, **({"params": params.ingest} if params else {})})


class _Account:
    """How many films were taken, and what became of the others."""

    def __init__(self) -> None:
        self.taken = self.looked_at = 0
        self._rejected: Counter[tuple[Reason, str]] = Counter()
        self._examples: dict[tuple[Reason, str], Film] = {}

    def add(self, film: Film) -> None:
        self.looked_at += 1
        if film.reason is None:
            self.taken += 1
        else:
            why = film.reason, film.detail
            self._rejected[why] += 1
            self._examples.setdefault(why, film)

    def close(self) -> int:
        """Say what was rejected and why; return the exit code."""
        console = terminal.progress_console()
        for (reason, detail), count in self._rejected.most_common():
            film = self._examples[reason, detail]
            such = "such as " if count > 1 else ""
            for line in (
                f"rejected {count}: {reason.value}; {detail}",
                f"  {such}{film.name}; what to do: {reason.remedy}",
            ):
                console.print(line, markup=False)
        return 0 if self.taken else EXIT_BAD_DATA


def _print(films: Iterator[tuple[Film, str | None]], what: str, as_json: bool) -> int:
    console, account = terminal.console(), _Account()
    for film, text in films:
        account.add(film)
        if as_json:
            told = {"path": film.name, what: text, "reason": film.reason and film.reason.value}
            sys.stdout.write(json.dumps(told) + "\n")
        elif text is not None:
            console.print(f"{film.name}: {text or '(nothing)'}", markup=False, soft_wrap=True)
    return account.close()
