"""Whatever the width of a terminal: no line is longer, no text is cut, no number is broken."""

from __future__ import annotations

import io
import re
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from cli_answer import Lapvqa
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from flows.commands import terminal
from lapvqa import storage
from lapvqa.dicom.reasons import Reason
from lapvqa.project import Project
from lapvqa.schemas import REJECTS

COMMANDS = [
    "status", "plan", "rejects", "rejects --files", "schedule list", "retrain --dry-run", "doctor",
    "lineage results/rrg/metrics.json", "lineage log", "lineage why tokens",
    "lineage down data/studies.parquet", "compare evaluate@rrg evaluate@probe_nih14 --quick",
]  # fmt: skip
WORDS = st.text("abz019.,%-", min_size=1, max_size=30)
TEXTS = st.lists(WORDS, max_size=30).map(" ".join)


def words(text: str) -> set[str]:
    """The words of an output, without the lines of a tree; sizes and times may change meanwhile."""
    text = re.sub(r"[\u2500-\u257f,]", " ", text)
    return set(re.sub(r"[0-9.]+ ([kMGT]?B|m?s)\b", r"n \1", text).split())


def fits(lines: list[str], width: int) -> bool:
    """Tell whether each line is within a width; a single word may be longer."""
    return all(len(line.rstrip()) <= width or len(line.split()) == 1 for line in lines)


@pytest.fixture
def rejecting(toy: Project, repository: Path) -> Project:
    """The toy with one reject of each reason, and a parameter that makes a stage stale."""
    rows = [
        {"stage": "ingest", "kind": "file", "file": f"p{place}/film.dcm", "reason": reason.value,
         "detail": "expected 8 or 16 bits, found 12", "remedy": reason.remedy}
        for place, reason in enumerate(Reason)
    ]  # fmt: skip
    storage.write_table(toy.rejects, pa.Table.from_pylist(rows, schema=REJECTS), REJECTS)
    shutil.copy(repository / "params.yaml", toy.params)
    return toy


@pytest.mark.parametrize("command", COMMANDS)
def test_a_narrow_terminal_shows_the_words_of_a_wide_one(
    rejecting: Project, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    shown = {}
    for width in (80, 100, 120, 2000):
        monkeypatch.setenv("COLUMNS", str(width))
        answer = lapvqa(*command.split())
        assert answer.out, answer.err
        assert fits(answer.out.splitlines(), width), answer.out
        assert "\u2026" not in answer.out
        shown[width] = words(answer.out)
    assert shown[2000] <= shown[120]
    if command != "status":  # which leaves out the counts below 110 columns, and says so
        assert shown[2000] <= shown[100] & shown[80]


@given(TEXTS, st.integers(20, 120), st.integers(0, 8))
@example("free 27.3 GB of `lapvqa rejects retry` 0.5 [0.25, 0.75]", 20, 0)
def test_a_line_keeps_its_words(text: str, width: int, indent: int) -> None:
    line = " " * indent + text
    pieces = terminal.broken(line, width)
    assert " ".join(pieces).split() == line.split()
    assert fits(pieces, width) or "`" in line


def test_what_belongs_together_stays_on_one_line() -> None:
    line = "disk: data 12.5 GB, since 3 min; AUC 0.500 [0.250, 0.750]; then `lapvqa rejects retry`"
    for width in range(24, len(line)):
        shown = terminal.broken(line, width)
        for whole in ("12.5 GB", "3 min", "[0.250, 0.750]", "`lapvqa rejects retry`"):
            assert any(whole in piece for piece in shown), width


@given(st.lists(st.tuples(WORDS, WORDS, TEXTS), min_size=1, max_size=5), st.integers(30, 120))
def test_a_table_keeps_its_words(rows: list[tuple[str, str, str]], width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    terminal.show_table(console, ("first", "second", "third"), rows)
    shown = Counter(out.getvalue().replace(",", " ").split())
    told = Counter(word for row in rows for cell in row for word in cell.replace(",", " ").split())
    assert told <= shown
