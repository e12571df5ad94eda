"""A look before anybody runs anything says what the stages then do."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import deliveries
import demo_project
import pyarrow.parquet as pq
import pydicom
import pytest

from lapvqa import schemas, storage
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import SourceError
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
    numbers = dict.fromkeys(file.study for file in preview.files if file.study)
    assert list(numbers) == list(range(1, preview.num_studies + 1))
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
    # Reports of studies whose films were not looked at are no strays.
    assert preview.rejected_reports == []


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


def test_a_report_that_names_somebody_is_rejected_where_the_stage_rejects_it(
    settings: Settings, tmp_path: Path
) -> None:
    text = tmp_path / "report.txt"
    text.write_text("FINDINGS: Seen by Dr. Kanarienvogel on 12/31/2010. Lungs are clear.\n")
    assert look(text, settings, limit=1).rejected_reports == []
    ingest = settings.params.ingest
    deid = ingest.deid.model_copy(update={"reports": "reject"})
    ingest = ingest.model_copy(update={"deid": deid})
    strict = replace(settings, params=settings.params.model_copy(update={"ingest": ingest}))
    ((path, reason, _),) = look(text, strict, limit=1).rejected_reports
    assert (path, reason) == ("report.txt", Reason.IDENTITY_IN_REPORT)


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


def one_study(archive: Path, project: Project) -> Path:
    """A study's folder that is called by its accession number, with its report in it."""
    image = next((project.root / "demo/mimic-cxr").rglob("*.dcm"))
    study = archive / "2024/05/A100"
    study.mkdir(parents=True)
    dataset = pydicom.dcmread(image)
    dataset.AccessionNumber = "A100"
    dataset.save_as(study / "IM1")
    (study / "befund.txt").write_text("Befund: Kein Erguss.")
    (study / "notiz.log").write_text("x")
    return study


@pytest.mark.parametrize("hidden", ["archive", ".archive"])
def test_a_folder_counts_by_its_own_name_too(
    project: Project, settings: Settings, tmp_path: Path, hidden: str
) -> None:
    study = one_study(tmp_path / hidden, project)
    preview = look(study, settings, limit=10)
    assert preview.rules == {"text named by accession number": 1}
    assert [file.result.path for file in preview.files] == ["IM1"]
    assert [report.path for report in preview.reports] == ["befund.txt"]
    assert list(preview.others) == ["notiz.log"]
    assert not preview.rejected_reports
    link = tmp_path / "A100"
    link.symlink_to(study)
    assert look(link, settings, limit=10).rules == preview.rules
    assert look(study.parents[1], settings, limit=10).rules == preview.rules


def test_a_folder_of_a_layout_is_of_that_layout(project: Project, settings: Settings) -> None:
    image = next((project.root / "demo/mimic-cxr").rglob("*.dcm"))
    own = look(image.parent, settings, limit=10)
    assert (own.layout, len(own.reports)) == ("mimic-cxr", 0)
    patient = look(image.parents[1], settings, limit=10)
    assert (patient.layout, len(patient.reports) > 0) == ("mimic-cxr", True)
    assert patient.rules.keys() == {"subject and study number"}


def test_packed_reports_beside_the_folder_are_its_own(
    project: Project, settings: Settings, tmp_path: Path
) -> None:
    source = project.root / "demo/mimic-cxr"
    shutil.copytree(source, tmp_path / "cxr", ignore=shutil.ignore_patterns("s*.txt"))
    with zipfile.ZipFile(tmp_path / "mimic-cxr-reports.zip", "w") as packed:
        for text in source.rglob("s*.txt"):
            packed.write(text, text.relative_to(source))
    assert len(look(tmp_path / "cxr", settings, limit=500).reports) > 10


def test_the_stated_table_is_found_below_the_folder(
    project: Project, settings: Settings, tmp_path: Path
) -> None:
    study = one_study(tmp_path / "archive", project)
    (study / "befund.txt").unlink()
    (study.parent / "export.csv").write_text("Accession;Befund\nA100;Kein Erguss.\n")
    for folder, table in ((study.parent, "export.csv"), (study.parent, "2024/05/export.csv")):
        stated = Machine.model_validate({"reports": {"table": table}})
        preview = look(folder, replace(settings, machine=stated), limit=10)
        assert [report.path for report in preview.reports] == ["export.csv#2"]


def test_a_folder_without_images_is_named_in_the_error(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(SourceError, match=rf"in {tmp_path}, found none .* among 1 file "):
        look(tmp_path, settings, limit=10)
