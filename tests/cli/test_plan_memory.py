"""``lapvqa plan-memory``: for what params.yaml says, or would say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_answer import Lapvqa

from lapvqa.errors import EXIT_USER

REPOSITORY = Path(__file__).parents[2]
SMALL = """pretrain:
  batch_size: 64
  model: {image_size: 224, patch_size: 16, width: 192, heads: 3, pooled_grid: 7}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_plans_for_a_file_without_writing_it(project: Path, lapvqa: Lapvqa) -> None:
    (project / "small.yaml").write_text(SMALL)
    before = (project / "params.yaml").read_bytes()
    answer = lapvqa("plan-memory", "--params", "small.yaml", "--memory", "2.5GB")
    assert answer.code == 0, answer.err
    assert (project / "params.yaml").read_bytes() == before
    assert "micro-batches of 64 images; reports of 63 tokens" in answer.out
    assert "a GPU, bfloat16 autocast" in answer.out
    assert "activations of the encoder" in answer.out
    assert "optimizer states" in answer.out
    assert "a card of 2.5GB: 1.4 GB for tensors" in answer.out
    assert "micro-batches of 16, pretrain.accumulate 4" in answer.out


def test_says_where_nothing_fits(project: Path, lapvqa: Lapvqa) -> None:
    answer = lapvqa("plan-memory", "--memory", "1.1GB")
    assert answer.code == 0, answer.err
    assert "not even one image at a time fits" in answer.out


@pytest.mark.parametrize(
    ("size", "what"),
    [
        ("lots", "expected a size with its unit, found 'lots'"),
        ("80", "expected a size with its unit, found '80'"),
        ("0.1GB", "expected more memory than a GPU's context takes, found 100.0 MB"),
    ],
)
def test_refuses_what_is_no_size(project: Path, lapvqa: Lapvqa, size: str, what: str) -> None:
    answer = lapvqa("plan-memory", "--memory", size)
    assert answer.code == EXIT_USER
    assert what in answer.err
