"""``lapvqa doctor``: every check can turn red, and every encoding is really decoded."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_answer import Answer, Lapvqa

from flows.commands import device_trials, doctor, plan
from flows.commands.doctor import FAIL, OK, WARN
from lapvqa import runtime
from lapvqa.dicom import pixels, self_test
from lapvqa.errors import ConfigError
from lapvqa.networks.device import require_compiler
from lapvqa.project import Project
from lapvqa.uptodate.staleness import StageState

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("sample", self_test.SAMPLES, ids=lambda sample: sample.file)
def test_each_encoding_decodes_to_the_pattern(sample: self_test.SampleFile) -> None:
    assert self_test.check(sample) == ""
    found = self_test.decode(sample)
    assert np.abs(found - self_test.pattern(sample.bits)).max() <= sample.max_error
    assert len(self_test.data_of(sample)) < 10_000


@pytest.mark.parametrize("sample", self_test.SAMPLES, ids=lambda sample: sample.file)
def test_damaged_pixels_turn_the_check_red(
    sample: self_test.SampleFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = self_test.data_of(sample)
    middle = len(data) * 2 // 3
    damaged = data[:middle] + bytes(255 - byte for byte in data[middle : middle + 40])
    monkeypatch.setattr(self_test, "data_of", lambda _: damaged + data[middle + 40 :])
    assert self_test.check(sample) != ""


def test_the_pattern_uses_the_whole_range() -> None:
    for bits in (8, 12):
        found = self_test.pattern(bits)
        assert (found.min(), found.max()) == (0, 2**bits - 1)
        assert len(np.unique(found)) > 200


def test_each_file_is_of_the_syntax_that_it_is_named_after() -> None:
    from io import BytesIO

    from pydicom import dcmread

    names = {}
    for sample in self_test.SAMPLES:
        meta = dcmread(BytesIO(self_test.data_of(sample)), stop_before_pixels=True).file_meta
        names[sample.file] = meta.TransferSyntaxUID
    assert len(set(names.values())) == len(self_test.SAMPLES)
    assert set(names.values()) >= set(pixels.NATIVE)
    variants = {"1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"}  # HTJ2K by another name
    assert set(pixels.DECODERS) - set(names.values()) <= variants


def test_a_missing_decoder_is_a_warning_that_says_what_happens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pixels, "DECODERS", dict.fromkeys(pixels.DECODERS, "absent"))
    found = {check.name: check for check in doctor.codecs(Project(tmp_path))}
    assert found["DICOM RLE lossless"].status == WARN
    assert "rejected" in found["DICOM RLE lossless"].remedy
    assert found["DICOM deflated"].status == OK


def test_packages_beside_the_lock(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    lock = tmp_path / "requirements" / "lock.txt"

    def found() -> list[tuple[str, str]]:
        return [(check.status, check.found) for check in doctor.packages(Project(tmp_path))]

    lock.write_text("typer==0.0.1\nno-such-package==1.0\n")
    statuses = found()
    assert statuses[0] == (FAIL, "missing: no-such-package")
    assert statuses[1][0] == WARN
    assert "typer" in statuses[1][1]
    assert "(lock: 0.0.1)" in statuses[1][1]
    from importlib import metadata

    lock.write_text(f"torch=={metadata.version('torch').split('+')[0]}\n")
    assert found() == [(OK, "1 as locked")], "a local build of the locked version is that version"


def test_stores(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.state.mkdir()
    assert [check.status for check in doctor.mlflow(project)] == [OK]
    project.mlflow_db.write_bytes(b"this is no database" * 100)
    assert [check.status for check in doctor.mlflow(project)] == [FAIL]
    project.mlflow_db.unlink()
    with sqlite3.connect(project.mlflow_db) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
        assert [check.status for check in doctor.mlflow(project)] == [OK]
        connection.execute("BEGIN IMMEDIATE")
        (check,) = doctor.mlflow(project)
        assert (check.status, check.found) == (OK, "SQLite, in use now")
    connection.close()


def test_a_server_that_does_not_answer_is_a_warning(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.local.write_text("servers: {mlflow_tracking_uri: 'http://127.0.0.1:9'}\n")
    (check,) = doctor.mlflow(project)
    assert check.status == WARN
    assert "does not answer" in check.found


def test_an_mlflow_that_cannot_make_its_tables_is_known_before_and_told_after(
    tmp_path: Path,
) -> None:
    """Alembic reads a % in a path as its own sign."""
    import mlflow

    odd = tmp_path / "100%"
    odd.mkdir()
    (odd / "mlflow").symlink_to(Path(mlflow.__file__).parent)
    code = """
        from pathlib import Path
        from flows.commands import doctor
        from lapvqa.machine import Machine
        from lapvqa.project import Project
        from tasks.mlflow_records.connection import RecordsUnavailableError, connect
        project = Project(Path.cwd())
        print([(one.status, one.remedy) for one in doctor.mlflow(project)])
        try:
            connect(project, Machine())
        except RecordsUnavailableError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, text=True, check=True,
        env={**os.environ, "PYTHONPATH": f"{odd}:{REPOSITORY}"}, stdout=subprocess.PIPE,
    )  # fmt: skip
    found, said, remedy = done.stdout.splitlines()
    move = "move the clone, or its .venv, to a path without %, then `make setup`"
    assert found == str([(WARN, move)])
    assert "invalid interpolation syntax" in said
    assert remedy == f"  what to do: {move}"


def test_a_check_that_breaks_down_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (doctor.settings, doctor.git))
    found = list(doctor.run_all(Project(tmp_path)))
    assert [check.status for check in found] == [FAIL, WARN]
    assert "params.yaml" in found[0].found


def test_the_whole_doctor_on_this_machine(process: Callable[..., Answer]) -> None:
    answer = process("doctor", cwd=REPOSITORY)
    lines = answer.out.splitlines()
    assert answer.code == 0, answer.out + answer.err
    assert lines[-1].endswith("this machine is fit for a run")
    assert sum("DICOM" in line for line in lines) == len(self_test.SAMPLES)
    for name in ("Python", "packages", "torch", "disk", "tokenizer", "Prefect", "MLflow", "git"):
        assert any(name in line for line in lines), name


@pytest.mark.parametrize(("wanted", "status"), [("true", FAIL), ("false", WARN)])
def test_without_a_c_compiler_compiled_training_fails(
    toy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, status: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(runtime, "has_gpu", lambda: False)
    text = toy.params.read_text()
    toy.params.write_text(text.replace("  compile: false ", f"  compile: {wanted} "))
    (check,) = doctor.compiler(toy)
    assert check.status == status
    assert ("pretrain.compile to false" in check.remedy) == (status == FAIL)
    would_run = [StageState("pretrain", True, ["x"])]
    said = [line for line in plan.warnings(toy, would_run) if "no compiler" in line]
    assert bool(said) == (status == FAIL)
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler.*\n.*compile to false"):
        require_compiler(torch.device("cpu"))
    (tmp_path / "g++").write_text("#!/bin/sh\n")
    (tmp_path / "g++").chmod(0o755)
    (check,) = doctor.compiler(toy)
    assert (check.status, check.found) == (OK, "g++")
    assert not [line for line in plan.warnings(toy, would_run) if "compiler" in line]


def test_what_a_device_computes_wrongly_turns_the_check_red(
    toy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [check.status for check in doctor.computing(toy)] == [OK, OK]
    exact = device_trials.scaled_dot_product_attention
    wrong = iter([exact, lambda *of: exact(*of) * 1.1])
    monkeypatch.setattr(device_trials, "scaled_dot_product_attention", lambda *of: next(wrong)(*of))
    product, attention = doctor.computing(toy)
    assert (product.status, attention.status) == (OK, FAIL)
    assert "apart from a CPU's result" in attention.found


@pytest.mark.parametrize(("wanted", "status"), [("true", FAIL), ("false", WARN)])
def test_a_block_that_cannot_be_compiled_fails_those_who_compile(
    toy: Project, monkeypatch: pytest.MonkeyPatch, wanted: str, status: str
) -> None:
    broken = device_trials.Trial("compiled block, there and back", 1.0, 1.0, "InductorError: cc1")
    monkeypatch.setattr(device_trials, "trials", lambda *_, compiled: iter([broken]))
    text = toy.params.read_text()
    toy.params.write_text(text.replace("  compile: false ", f"  compile: {wanted} "))
    (check,) = doctor.computing(toy)
    assert (check.status, check.found) == (status, "InductorError: cc1")
    assert ("pretrain.compile to false" in check.remedy) == (status == FAIL)


def test_outside_a_project_the_machine_is_looked_at(
    tmp_path: Path, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = lapvqa("doctor")
    assert answer.code == 0, answer.out + answer.err
    assert "this machine is fit for a run" in answer.out
    assert "no project here" in answer.out
    assert sum("DICOM" in line for line in answer.out.splitlines()) == len(self_test.SAMPLES)
    assert not list(tmp_path.iterdir())


def test_the_doctor_of_a_sick_project_fails(
    toy: Project, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (doctor.settings, doctor.git))
    toy.params.write_text("tokens: {}\n")
    answer = lapvqa("doctor")
    assert answer.code == 2
    assert "1 warn, 1 fail: a run would fail here" in answer.out
