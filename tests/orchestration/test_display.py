"""What a person sees of stages at work: in terminals of two widths, and in a log file."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from tasks import display as module
from tasks.display import Display, StageOutcome, counting

NOTE = "loss 2.83, 71 images/s, 2122 tokens/s, MFU 38% of 0.0297 TFLOP/s measured, data wait 0.0%"
ENTRY = {"stage": "evaluate@probe_chexpert", "done": 80, "total": 320, "unit": "images",
         "rate": 4.1, "eta_s": 61.0, "note": NOTE}  # fmt: skip


def shown(width: int | None, *entries: dict, refresh: bool = True) -> list[str]:
    """Return the lines that a display of one stage writes; ``width`` None: into a file."""
    out = io.StringIO()
    console = Console(file=out, width=width or 160, force_terminal=width is not None)
    display = Display(console)
    display.expect(["inventory", "evaluate@probe_chexpert"], {"evaluate@probe_chexpert": 80.0})
    display.begin("evaluate@probe_chexpert", "upstream export")
    for entry in entries:
        display.progress(entry)
        if display._bar is not None:
            display._bar.refresh()
    display.end(StageOutcome("evaluate@probe_chexpert", "ran", 79.9))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", out.getvalue())
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("width", [80, 120])
def test_bar_count_and_eta_fit_the_terminal_and_the_note_is_cut(width: int) -> None:
    lines = "\n".join(shown(width, ENTRY))
    assert "80/320 images" in lines
    assert "ETA 1 min 1 s" in lines
    assert "━" in lines
    assert "loss 2.83" in lines


def test_before_the_first_count_the_line_says_how_long_it_took_last_time() -> None:
    text = "\n".join(shown(80))
    assert "starts (stage 2 of 2; last time 1 min 20 s; upstream export)" in text
    assert "0 s, last time 1 min 20 s" in text


def test_a_second_count_has_an_eta_of_its_own() -> None:
    done = ENTRY | {"done": 320, "eta_s": 0.0}
    again = ENTRY | {"done": 10, "total": 50, "eta_s": 33.0}
    text = "\n".join(shown(120, done, again))
    assert "10/50 images" in text
    assert "ETA 33 s" in text


def test_a_log_file_has_sparse_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SPARSE_S", 0.0)
    lines = shown(None, ENTRY)
    assert lines[1].startswith(
        "evaluate@probe_chexpert: 80/320 images, 4.1/s, ETA 1 min 1 s, loss 2.83"
    )
    assert lines[2] == "evaluate@probe_chexpert: ran after 1 min 20 s"


def test_of_speed_and_end_nothing_is_said_while_nobody_knows_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SPARSE_S", 0.0)
    entry = ENTRY | {"done": 1, "rate": 0.0, "eta_s": None, "note": "trained"}
    assert shown(None, entry)[1] == "evaluate@probe_chexpert: 1/320 images, trained"


@pytest.mark.parametrize("width", [None, 80])
def test_work_of_this_process_is_counted_too(
    width: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SPARSE_S", 0.0)
    out = io.StringIO()
    console = Console(file=out, width=width or 160, force_terminal=width is not None)
    with counting(console, "demo archive", "images") as told:
        told(0, 143)
        told(25, 143)
    assert "25/143 images" in out.getvalue()


def test_what_was_not_computed_did_not_run() -> None:
    out = io.StringIO()
    Display(Console(file=out, width=160)).end(
        StageOutcome("evaluate@ad", "ran", 17.2, absent="no VinDr-CXR images here")
    )
    assert out.getvalue() == "evaluate@ad: not computed: no VinDr-CXR images here\n"


def test_who_interrupts_a_stage_is_not_told_that_it_failed() -> None:
    out = io.StringIO()
    Display(Console(file=out, width=160)).end(StageOutcome("pretrain", "interrupted", 13.3))
    assert (
        out.getvalue() == "pretrain: interrupted after 13.3 s; the next run continues from here\n"
    )
