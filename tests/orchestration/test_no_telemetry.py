"""No library is imported before it has been told to phone nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running_toy import DRIVER, Toy

WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        told = {
            "mlflow": "MLFLOW_DISABLE_TELEMETRY", "prefect": "PREFECT_SERVER_ANALYTICS_ENABLED",
        }.get(name)
        if told:
            with open(os.environ["SEEN"], "a") as seen:
                seen.write(f"{name} {os.environ.get(told)}\\n")
sys.meta_path.insert(0, Watch())
"""
"""As sitecustomize.py: each process of a run notes what stood in its environment."""


@pytest.mark.parametrize("driver", [DRIVER, "import mlflow"])
def test_a_run_imports_nobody_who_phones_home(copied: Toy, tmp_path: Path, driver: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    seen = tmp_path / "seen"
    told_by_others = {"CI", "DO_NOT_TRACK"}  # as a user has neither
    environment = {k: v for k, v in copied.environment.items() if k not in told_by_others}
    places = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment |= {"SEEN": str(seen), "PYTHONPATH": os.pathsep.join(places)}
    (copied.root / "input" / "second.dcm").write_text("more pixels")
    done = subprocess.run(
        [sys.executable, "-c", driver, '"ingest"'], cwd=copied.root, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = set(seen.read_text().splitlines())
    is_ours = driver == DRIVER
    assert ("mlflow None" in found) != is_ours, "and the watch sees an import that nobody prepared"
    assert not is_ours or found == {"mlflow true", "prefect false"}
