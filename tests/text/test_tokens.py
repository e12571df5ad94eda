"""Stage tokens: every study comes out once, ids give the text back, bytes do not vary."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import run_tokens, shard_keys, token_rows

from lapvqa import schemas, storage
from lapvqa.errors import MissingArtifactError, SourceError
from lapvqa.project import Project
from lapvqa.text.bpe import EOT, encoding
from lapvqa.text.sections import target_text

REPORTS: dict[str, str | None] = {
    "c": "\n FINDINGS: Lungs are clear.\n IMPRESSION: Normal.",
    "a": "No pneumothorax.",
    "b": None,
    "d": " \n",
    "e": "\n INDICATION: cough",
    "f": "\n FINDINGS: ___\n",
}


def _rejects(project: Project) -> list[dict[str, Any]]:
    table = storage.read_table(project.token_rejects, schemas.REJECTS, made_by="tokens")
    return table.to_pylist()


def test_every_study_is_tokenised_or_rejected(
    write_studies: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    project = write_studies(REPORTS)
    counts = run_tokens(project)
    rows, rejects = token_rows(project), _rejects(project)
    assert [row["study_key"] for row in rows] == ["a", "c"]
    assert {row["file"]: row["reason"] for row in rejects} == {
        "b": "no_report",
        "d": "empty_report",
        "e": "no_section",
        "f": "empty_section",
    }
    assert all(row["kind"] == "study" and row["detail"] and row["remedy"] for row in rejects)
    assert (counts["studies"], counts["tokenised"], counts["rejected"]) == (6, 2, 4)
    assert counts["rejected_no_report"] == 1
    printed = capsys.readouterr().out
    assert "0 reports known, 6 new" in printed
    assert "studies: 6 in = 2 tokenised + 4 rejected (1 empty_report" in printed
    ids = [
        encoding().encode_ordinary(text)
        for text in ("No pneumothorax.", "Lungs are clear. Normal.")
    ]
    num_ids = sum(map(len, ids))
    assert f"tokens: {num_ids} in = {num_ids} kept + 0 cut" in printed


def test_rows_hold_ids_and_spans(write_studies: Callable[..., Project]) -> None:
    project = write_studies(REPORTS, {"c": "test"})
    run_tokens(project)
    row = token_rows(project)[1]
    ids = row["token_ids"]
    assert ids[0] == ids[-1] == EOT
    assert EOT not in ids[1:-1]
    assert encoding().decode(ids[1:-1]) == "Lungs are clear. Normal."
    report = REPORTS["c"] or ""
    spans = {span["name"]: report[span["start"] : span["end"]] for span in row["spans"]}
    assert {name: text.strip() for name, text in spans.items()} == {
        "findings": "Lungs are clear.",
        "impression": "Normal.",
    }
    assert (row["split"], row["patient_key"], row["truncated"]) == ("test", "patient-c", False)
    assert (row["verdict"], row["sided"]) == ("findings+impression", False)
    assert row["report_sha256"] == hashlib.sha256(report.encode()).hexdigest()


def test_a_long_text_is_cut_and_still_ends(write_studies: Callable[..., Project]) -> None:
    project = write_studies({"a": "clear " * 50, "b": "clear clear"})
    counts = run_tokens(project, max_length=8)
    long, short = token_rows(project)
    assert len(long["token_ids"]) == 8
    assert (long["token_ids"][0], long["token_ids"][-1]) == (EOT, EOT)
    assert (long["truncated"], short["truncated"]) == (True, False)
    assert encoding().decode(long["token_ids"][1:-1]) == "clear clear clear clear clear clear"
    assert counts["truncated"] == 1
    assert (counts["tokens"], counts["tokens_cut"]) == (6 + 2, 50 - 6)


def test_the_order_of_arrival_changes_no_byte_of_a_firstrun_tokens(write_studies: Any) -> None:
    reports = {f"{number:03d}": f"Report {number}. No effusion." for number in range(40)}
    project = write_studies(reports)
    run_tokens(project, shard_reports=16)
    first = {file.name: file.read_bytes() for file in project.tokens_dir.iterdir()}
    assert sorted(map(len, shard_keys(project))) == [8, 16, 16]
    shutil.rmtree(project.state)
    write_studies(dict(reversed(reports.items())))
    run_tokens(project, shard_reports=16)
    assert {file.name: file.read_bytes() for file in project.tokens_dir.iterdir()} == first


def test_no_text_to_train_on_is_an_error_that_says_so(
    write_studies: Callable[..., Project],
) -> None:
    project = write_studies({"a": None, "b": "clear"}, {"b": "test"})
    with pytest.raises(SourceError, match=r"train split, found none: 1 studies in train, 1 tok"):
        run_tokens(project)
    assert [row["reason"] for row in _rejects(project)] == ["no_report"]
    assert not project.tokens_dir.exists()


def test_without_studies_the_stage_to_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="ingest"):
        run_tokens(Project(tmp_path))


def test_what_names_a_side_in_its_own_language_or_in_none_we_know_is_never_mirrored(
    write_studies: Callable[..., Project],
) -> None:
    reports = {
        "clear": "Befund: Kein Erguss, Röntgen Thorax unauffällig.\n",
        "sided": "Befund: Kleiner Erguss rechts, Herz normal groß.\n",
        "unknown": "Keuhkot ovat kirkkaat.",
    }
    project = write_studies(reports)
    run_tokens(project)
    sided = {row["study_key"]: row["sided"] for row in token_rows(project)}
    assert sided == {"clear": False, "sided": True, "unknown": True}
    text = encoding().decode(token_rows(project)[0]["token_ids"][1:-1])
    assert text == "Kein Erguss, Röntgen Thorax unauffällig."


@pytest.mark.corpus
def test_the_corpus_reports_are_all_tokenised(
    corpus: Path, write_studies: Callable[..., Project]
) -> None:
    files = sorted((corpus / "mimic-cxr" / "files").rglob("*.txt"))
    project = write_studies({file.stem: file.read_bytes().decode() for file in files})
    counts = run_tokens(project, max_length=2048)
    assert (counts["studies"], counts["tokenised"], counts["truncated"]) == (181, 181, 0)
    reports = {file.stem: file.read_bytes().decode() for file in files}
    for row in token_rows(project):
        text = encoding().decode(row["token_ids"][1:-1])
        assert text == target_text(reports[row["study_key"]], "both").text


@pytest.mark.corpus
def test_openi_verdicts(openi: dict[str, str], write_studies: Callable[..., Project]) -> None:
    reports = openi
    project = write_studies(reports)
    verdicts: dict[str, dict[str, int]] = {}
    for sections in ("findings", "impression", "both"):
        counts = run_tokens(project, sections=sections, max_length=512)
        reasons = Counter(row["reason"] for row in _rejects(project))
        assert counts["tokenised"] + sum(reasons.values()) == len(reports) == 3955
        verdicts[sections] = {"ok": counts["tokenised"], **reasons}
    # The collection's own counts: of 3,955 reports 530 have no findings, 34 no impression, 28
    # neither. With neither, nothing may stand in: comparison and indication are no target.
    assert verdicts == {
        "findings": {"ok": 3955 - 530, "no_section": 530},
        "impression": {"ok": 3955 - 34, "no_section": 34},
        "both": {"ok": 3955 - 28, "no_section": 28},
    }
