"""``lapvqa open``: pages of others that ask no network, opened where a person wants to look."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.commands import open_pages
from lapvqa.errors import MissingPackageError
from lapvqa.lineage import ledger
from lapvqa.lineage.runs import Run
from lapvqa.project import Project

DVC = [sys.executable, "-m", "dvc"]


def test_the_page_has_its_drawing_code_inside(tmp_path: Path, capsys) -> None:
    pytest.importorskip("vl_convert")
    subprocess.run([*DVC, "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "curves.csv").write_text("fpr,trained\n0,0\n1,1\n")
    (tmp_path / "dvc.yaml").write_text("plots: [{curves.csv: {x: fpr, y: trained}}]\n")
    assert open_pages.execute(Project(tmp_path), "plots", browser=False) == 0
    assert "dvc_plots/index.html" in capsys.readouterr().out
    page = (tmp_path / "dvc_plots" / "index.html").read_text()
    assert "window.vegaEmbed=" in page
    assert "vegaEmbed('#curves_csv'" in page
    assert "<script src=" not in page


def test_without_the_package_the_error_names_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(MissingPackageError, match="vl_convert") as caught:
        open_pages.execute(Project(tmp_path), "plots", browser=False)
    assert "make setup-plots" in caught.value.hint


def test_prefects_page_opens_at_the_last_run(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert open_pages.last_flow_run(project) == ""
    for number in ("1", "2"):
        run = Run("ingest", 1.0, 2.0, prefect_flow_run=number)
        ledger.append(project, ledger.RUN, run.payload())
    ledger.append(project, ledger.LOOK, {"what": "no run"})
    assert open_pages.last_flow_run(project) == "/runs/flow-run/2"


def test_the_pages_of_prefect_that_are_served_first_know_no_analytics() -> None:
    import prefect

    pages = [path.read_text() for path in Path(prefect.__ui_static_path__).rglob("*.js")]
    assert pages
    assert not any("amplitude.com" in page for page in pages)
