"""What `lapvqa schedule` is asked for at once has to fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli import main


def test_two_timers_at_once_are_refused(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    assert main(["schedule", "--crontab", "--systemd"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "expected --crontab or --systemd, found both" in told.err
