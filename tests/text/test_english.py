"""English reports make the shards that they made before other languages were read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import run_tokens

from lapvqa.synth.patient_history import sample_findings
from lapvqa.synth.report_grammar import write_report

# A shard is named by its bytes. Made by the code before languages, pyarrow 25 (commit 5a49765).
DEMO = "tokens-d4e7815aab1d4226.parquet"
CORPUS = "tokens-3060ca422b30c2cf.parquet"
OPENI = "tokens-f4c23af7f4e6971c.parquet"


def _shard(write_studies: Any, reports: dict[str, str]) -> str:
    project = write_studies(dict(reports))
    run_tokens(project, max_length=2048)
    (shard,) = project.tokens_dir.iterdir()
    return shard.name


def test_the_demo(write_studies: Any) -> None:
    rng = np.random.default_rng(0)
    reports = {
        f"{number:03d}": write_report(
            rng,
            sample_findings(rng),
            examination="CHEST (PA AND LAT)",
            first=number % 3 == 0,
            female=number % 2 == 0,
        ).text
        for number in range(400)
    }
    assert _shard(write_studies, reports) == DEMO


@pytest.mark.corpus
def test_the_corpus(corpus: Path, write_studies: Any) -> None:
    files = sorted((corpus / "mimic-cxr" / "files").rglob("*.txt"))
    reports = {file.stem: file.read_bytes().decode() for file in files}
    assert _shard(write_studies, reports) == CORPUS


@pytest.mark.corpus
def test_openi(openi: dict[str, str], write_studies: Any) -> None:
    assert _shard(write_studies, openi) == OPENI
