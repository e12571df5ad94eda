"""A look before anybody runs anything says what the stages then do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import deliveries
import demo_project
import pyarrow.parquet as pq
import pytest

from lapvqa import schemas, storage
from lapvqa.dicom.reasons import Reason
from lapvqa.machine import Machine
from lapvqa.params import load_params
from lapvqa.preview import Settings, look
from lapvqa.project import Project
from lapvqa.text.languages import load_languages


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The demo archive with one file cut off, ingested and tokenised as usual."""
    return demo_project.ingested(tmp_path_factory, tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def settings(project: Project) -> Settings:
    return Settings(load_params(project.params), Machine(), load_languages(project.root))


def test_an_archive_is_seen_as_the_stages_take_it(project: Project, settings: Settings) -> None:
    preview = look(project.root / "demo/mimic-cxr", settings, limit=10_000)
    images = storage.read_table(project.images, schemas.IMAGES, made_by="ingest")
    taken = [file.result for file in preview.files if file.reason is None]
    assert preview.not_looked_at == 0
    for column in ("pixels_sha256", "file_sha256", "voi", "photometric"):
        stored = Counter(images[column].to_pylist())
        assert Counter(getattr(image, column) for image in taken) == stored, column
    assert Counter(image.view for image in taken) == Counter(images["view"].to_pylist())
    rejects = storage.read_table(project.rejects, schemas.REJECTS, made_by="ingest")
    seen = Counter(str(f.reason) for f in preview.files if f.reason)
    seen += Counter(str(reason) for _, reason, _ in preview.rejected_reports)
    assert seen == Counter(rejects["reason"].to_pylist())

    tokens = storage.read_table(project.tokens_dir, schemas.TOKENS, made_by="tokens")
    limit = settings.params.tokens.max_length
    lengths = [min(report.num_tokens, limit) for report in preview.reports if report.num_tokens]
    assert Counter(lengths) == Counter(map(len, tokens["token_ids"].to_pylist()))
    for name in ("verdict", "truncated", "sided"):
        own = {
            "verdict": [str(report.target.verdict) for report in preview.reports],
            "truncated": [report.is_cut for report in preview.reports],
            "sided": [report.is_sided for report in preview.reports],
        }[name]
        assert Counter(own) == Counter(tokens[name].to_pylist()), name


def test_beyond_the_limit_it_says_how_many(project: Project, settings: Settings) -> None:
    preview = look(project.root / "demo/mimic-cxr", settings, limit=5)
    whole = pq.read_metadata(project.images).num_rows
    assert len(preview.files) == 5
    assert preview.not_looked_at == whole - 5


def test_one_file_is_seen_as_in_its_archive(project: Project, settings: Settings) -> None:
    image = next((project.root / "demo/mimic-cxr").rglob("*.dcm"))
    (seen,) = look(image, settings, limit=1).files
    assert seen.reason is None
    assert seen.pixels is not None
    assert seen.pixels.shape == (384, 384)


def test_a_report_by_itself(project: Project, settings: Settings) -> None:
    text = next((project.root / "demo/mimic-cxr").rglob("s*.txt"))
    preview = look(text, settings, limit=1)
    assert preview.layout == ""
    (report,) = preview.reports
    assert report.target.verdict.has_text
    assert report.num_tokens > 2


def test_a_table_of_reports_by_itself(settings: Settings, tmp_path: Path) -> None:
    table = tmp_path / "reports.csv"
    table.write_text("Accession;Report\nA1;Lungs are clear.\nA2\nA3;Effusion on the left.\n")
    preview = look(table, settings, limit=10)
    assert [report.path for report in preview.reports] == ["reports.csv#2", "reports.csv#4"]
    assert [report.is_sided for report in preview.reports] == [False, True]
    ((path, reason, _),) = preview.rejected_reports
    assert (path, reason) == ("reports.csv#3", Reason.BAD_REPORT)
    assert look(table, settings, limit=1).not_looked_at == 2
    assert preview.notes == ["columns: identifier 'Accession' as accession; text 'Report'"]


@pytest.mark.parametrize("header", ["Patient;Report", "Accession;Label"])
def test_a_table_that_is_not_read_says_why(settings: Settings, tmp_path: Path, header: str) -> None:
    table = tmp_path / "reports.csv"
    table.write_text(f"{header}\nSECRET;x\n")
    preview = look(table, settings, limit=10)
    (note,) = preview.notes
    assert "no column known as" in note
    assert "local.yaml" in note
    assert "SECRET" not in note
    assert list(preview.others.values()) == ["table"]


def test_what_is_neither_image_nor_report_is_told_by_its_kind(
    settings: Settings, tmp_path: Path
) -> None:
    for name, kind in (("README.TXT", "text"), ("VIEWER.EXE", "viewer"), ("scan.pdf", "document")):
        (tmp_path / name).write_bytes(b"MZ")
        assert set(look(tmp_path / name, settings, limit=1).others.values()) == {kind}


def test_a_bad_file_says_why(project: Project, settings: Settings, tmp_path: Path) -> None:
    image = next((project.root / "demo/mimic-cxr").rglob("*.dcm"))
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(image.read_bytes()[:-2000])
    (seen,) = look(cut, settings, limit=1).files
    assert seen.reason is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("kind", "rule", "others", "companions"),
    [
        ("cd", "text named by accession number", {"viewer": 2, "text": 1, "web page": 1}, 1),
        ("vna", "structured report of the study", {}, 0),
        ("dated", "accession number in a table", {"table": 1}, 0),
    ],
)
def test_deliveries_of_hospitals(
    project: Project, settings: Settings, tmp_path: Path, kind: str, rule: str,
    others: dict[str, int], companions: int,
) -> None:  # fmt: skip
    source = project.root / "demo/mimic-cxr"
    deliveries.MAKERS[kind](source, tmp_path / kind)
    preview = look(tmp_path / kind, settings, limit=10_000)
    images, texts = len(list(source.rglob("*.dcm"))), len(list(source.rglob("s*.txt")))
    assert sum(file.reason is None for file in preview.files) == images
    assert sum(bool(file.result.companion) for file in preview.files) == companions
    assert preview.rules == {rule: texts}
    assert Counter(preview.others.values()) == others
