"""The coverage table adds up to the studies, and follows what the stage wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from runs import run_tokens

from lapvqa.errors import MissingArtifactError
from lapvqa.project import Project
from lapvqa.text.coverage import coverage, languages
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


def test_languages_are_counted_with_their_length(
    write_studies: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    german = "Befund: Kleiner Pleuraerguss rechts.\nBeurteilung: Kein Anhalt für eine Pneumonie."
    chinese = "影像所见：两肺纹理清晰，未见实变。\n诊断意见：两肺未见明显异常。"
    reports = {f"e{number}": "No pleural effusion is seen." for number in range(5)}
    reports |= {"d1": german, "d2": german, "z": chinese, "f": "Keuhkot ovat kirkkaat.", "n": None}
    project = write_studies(reports)
    counts = run_tokens(project, max_length=64)
    printed = capsys.readouterr().out
    assert "languages: 5 en, 2 de, 1 unknown, 1 zh" in printed
    assert "1 report in no language of params/reports" in printed
    assert counts["language_de"] == 2
    rows, hint = languages(project)
    assert [(row.language, row.reports) for row in rows] == [
        ("en", 5), ("de", 2), ("unknown", 1), ("zh", 1),
    ]  # fmt: skip
    english, german_row, _, chinese_row = (row.tokens_per_character for row in rows)
    # GPT-2's vocabulary is English: others cost more of tokens.max_length for the same text.
    assert english < 0.3 < german_row < 0.6 < 1.5 < chinese_row
    assert hint is None


def test_a_length_that_cuts_much_is_told_with_one_that_does_not(
    write_studies: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    long = "No effusion. " * 30
    reports = {f"{number:03d}": "No effusion." for number in range(170)}
    project = write_studies(reports | {f"long{number:02d}": long for number in range(30)})
    run_tokens(project, max_length=64)
    _, hint = languages(project)
    assert hint is not None
    assert hint in capsys.readouterr().out
    enough = int(hint.split(";")[1].split()[0])
    assert hint.startswith("tokens.max_length = 64 cuts 15% of the reports (")
    run_tokens(project, max_length=enough)
    assert languages(project)[1] is None
    run_tokens(project, max_length=enough - 1)
    assert languages(project)[1] is not None


def test_a_few_cut_reports_are_no_matter(write_studies: Callable[..., Project]) -> None:
    reports = {
        f"{number:03d}": "No pleural effusion or pneumothorax is seen." for number in range(99)
    }
    project = write_studies(reports | {"long": "No effusion. " * 10})
    run_tokens(project, max_length=24)
    rows, hint = languages(project)
    assert (rows[0].reports_cut, hint) == (1, None)


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
