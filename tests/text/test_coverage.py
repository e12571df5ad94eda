"""The coverage table adds up to the studies, and follows what the stage wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from runs import run_tokens

from lapvqa.errors import MissingArtifactError
from lapvqa.project import Project
from lapvqa.text.coverage import coverage
from lapvqa.text.sections import Verdict


def test_coverage_counts_verdicts_cuts_and_sides(write_studies: Callable[..., Project]) -> None:
    project = write_studies(
        {
            "a": "\n FINDINGS: Left effusion.\n IMPRESSION: Effusion.",
            "b": "\n FINDINGS: Clear.",
            "c": "\n IMPRESSION: " + "Normal heart. " * 20,
            "d": "\n HISTORY: cough\n \n Lungs clear.",
            "e": "RUL opacity.",
            "f": "Normal.",
            "g": None,
            "h": " ",
            "i": "\n FINDINGS: ___",
            "j": "\n INDICATION: cough",
        }
    )
    run_tokens(project, shard_reports=3, max_length=16)
    rows = coverage(project)
    assert rows == [
        ("findings and impression", 1), ("findings", 1), ("impression", 1), ("last paragraph", 1),
        ("full report", 2), ("no report", 1), ("empty report", 1), ("no section", 1),
        ("empty section", 1), ("cut to tokens.max_length", 1), ("names a side", 2),
    ]  # fmt: skip
    assert sum(count for _, count in rows[: len(Verdict)]) == 10


def test_before_the_stage_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="tokens"):
        coverage(Project(tmp_path))
    project = Project(tmp_path)
    project.token_rejects.parent.mkdir(parents=True)
    project.token_rejects.touch()
    with pytest.raises(MissingArtifactError, match="tokens"):
        coverage(project)


@pytest.mark.corpus
def test_coverage_of_openi(openi: dict[str, str], write_studies: Callable[..., Project]) -> None:
    project = write_studies(openi)
    run_tokens(project, max_length=512)
    found = dict(coverage(project))
    # By the collection's own fields: 530 reports without findings, 34 without impression, 28
    # without either.
    assert found["findings and impression"] == 3955 - 530 - 34 + 28
    assert found["findings"] == 34 - 28
    assert found["impression"] == 530 - 28
    assert found["no section"] == 28
    assert sum(count for name, count in found.items()) == 3955 + found["names a side"]
