"""Reports as hospitals deliver them with a tree of DICOM files, up to studies.parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from made_dicom import write_project
from ruamel.yaml import YAML
from test_hl7 import message
from test_ingest import image, reasons, run, said, table, write_tree
from test_structured_report import FINDING, code, document, item, whole_report

from lapvqa.errors import SourceError
from lapvqa.ingest import study_tables
from lapvqa.ingest.archives.protocol import KnownStudies, Matches, ReportMatch
from lapvqa.ingest.archives.recognise import open_archive
from lapvqa.ingest.columns import in_order
from lapvqa.ingest.reports import ReportResult, as_table
from lapvqa.project import Project
from lapvqa.uptodate import input_folders

BUDGET = {"overall": 0.9, "per_folder": 1.0, "folder_min_files": 20}
KEPT = {"keep_ids": True, "dates": "drop", "identity_removed": "accept", "reports": "flag"}
Files = dict[str, bytes | str]


def images(number: int, place: str = "{n}/IM1.dcm", **attributes: Any) -> Files:
    """One image for each study 1.2.1, 1.2.2 ... with accession number A1, A2 ..."""
    return {
        place.format(n=n): image(
            n, patient=f"P{n}", study=f"1.2.{n}", AccessionNumber=f"A{n}", **attributes
        )
        for n in range(1, number + 1)
    }


def ingested(tmp_path: Path, files: Files, **ingest: Any) -> Project:
    source = write_tree(tmp_path / "archive", files)
    settings = {"reject_budget": BUDGET, "deid": KEPT, **ingest}
    project = write_project(tmp_path / "project", source, workers=1, **settings)
    run(project)
    return project


def reports(project: Project) -> dict[str, str]:
    """The text of each study that has one, white space collapsed."""
    return {
        row["study_key"]: " ".join(row["report"].split())
        for row in table(project.studies)
        if row["report"] is not None
    }


def test_a_table_in_latin_1_by_accession_number(tmp_path: Path) -> None:
    rows = "Anforderungsnummer;Befund;Beurteilung\r\nA1;Herz vergrößert;Kardiomegalie\r\n"
    rows += 'A2;"Zeile eins;\r\nZeile zwei";unauffällig\r\nA9;ohne Bild;x\r\n'
    rows += 'A2;"Zeile eins;\r\nZeile zwei";unauffällig\r\nA3\r\n'
    project = ingested(tmp_path, {**images(3), "befunde.csv": rows.encode("cp1252")})
    assert reports(project) == {
        "1.2.1": "FINDINGS: Herz vergrößert IMPRESSION: Kardiomegalie",
        "1.2.2": "FINDINGS: Zeile eins; Zeile zwei IMPRESSION: unauffällig",
    }
    assert reasons(project) == {
        "befunde.csv#4": "report_without_study",
        "befunde.csv#5": "superseded_report",
        "befunde.csv#6": "bad_report",
    }
    lines = said(project)
    assert "reports: 5 in = 2 taken + 3 rejected" in lines
    assert "reports matched by accession number in a table: 2" in lines
    assert "reports in encoding cp1252: 2" in lines


def test_no_accession_number_is_written_anywhere(tmp_path: Path) -> None:
    files = images(2)
    number = "ACC4711X"
    files["1/IM1.dcm"] = image(1, patient="P1", study="1.2.1", AccessionNumber=number)
    source = write_tree(
        tmp_path / "archive", {**files, "r.csv": f"accession,report\n{number},Clear.\nA2,Normal.\n"}
    )
    project = write_project(tmp_path / "project", source, workers=1)
    run(project)
    assert len([row for row in table(project.studies) if row["report"]]) == 2
    for path in project.root.rglob("*"):
        assert not path.is_file() or number.encode() not in path.read_bytes(), path


def test_texts_named_by_accession_number(tmp_path: Path) -> None:
    files = images(4)
    files["4/b.dcm"] = image(44, patient="P9", study="1.2.9", AccessionNumber="A3")
    texts: Files = {
        "reports/A1.txt": "One.", "reports/A1_2.txt": "One, another.",
        "reports/A2-final.txt": "Two.",
        "reports/A3.txt": "Of two studies.", "reports/x/A4/report.txt": "Four.",
    }  # fmt: skip
    project = ingested(tmp_path, {**files, **texts})
    assert reports(project) == {"1.2.1": "One.", "1.2.2": "Two.", "1.2.4": "Four."}
    assert reasons(project) == {
        "reports/A1_2.txt": "superseded_report",
        "reports/A3.txt": "ambiguous_report",
    }


def test_a_cd_with_a_readme_has_no_report_in_it(tmp_path: Path) -> None:
    """A README.TXT at the root of a CD became the report of 12 of 12 studies."""
    files: Files = {}
    for n in range(1, 4):
        files |= images(3, f"cd{n}/DICOM/{{n}}/IM1.dcm") if n == 1 else {}
        files[f"cd{n}/README.TXT"] = "Open the viewer to see the images."
        files[f"cd{n}/VIEWER/LICENSE.txt"] = "All rights reserved."
        files[f"cd{n}/VIEWER/help.html"] = "<html><body>Help</body></html>"
    files["cd2/DICOM/IM1.dcm"] = image(20, patient="P20", study="1.2.20")
    files["cd3/DICOM/IM1.dcm"] = image(30, patient="P30", study="1.2.30")
    files["cd3/Befund_2024.txt"] = "Unauffällig."
    project = ingested(tmp_path, files)
    assert reports(project) == {"1.2.30": "Unauffällig."}
    assert reasons(project) == {}
    assert "reports: 1 in = 1 taken + 0 rejected" in said(project)


def test_one_patient_folder_with_several_studies(tmp_path: Path) -> None:
    files = {
        f"P1/{day}/IM1.dcm": image(n, study=f"1.2.{n}", StudyDate=f"202401{day}")
        for n, day in enumerate(("02", "05"), start=1)
    }
    files |= {"P2/a.dcm": image(8, patient="P2", study="1.2.8", StudyDate="20240105")}
    files |= {"P2/b.dcm": image(9, patient="P3", study="1.2.9", StudyDate="20240106")}
    texts: Files = {
        "P1/report.txt": "Whose?", "P1/2024-01-05.txt": "Of the fifth.",
        "P1/20240107.txt": "No study.", "P2/20240105.txt": "Two patients.",
    }  # fmt: skip
    project = ingested(tmp_path, {**files, **texts})
    assert reports(project) == {"1.2.2": "Of the fifth."}
    details = {row["file"]: row["detail"] for row in table(project.rejects)}
    assert reasons(project) == dict.fromkeys(details, "report_without_study")
    assert details.keys() == texts.keys() - {"P1/2024-01-05.txt"}
    assert "holds several studies" in details["P1/report.txt"]


def test_structured_reports_are_reports_or_companions(tmp_path: Path) -> None:
    dose = document(item("TEXT", FINDING, TextValue="x"), title=code("113701", "Dose"), number=2)
    files: Files = {
        **images(2),
        "sr/1": whole_report(study="1.2.1"),
        "sr/2": dose,
        "sr/3": document(
            item("TEXT", FINDING, TextValue="x"), study="1.2.7", number=3, AccessionNumber="A7"
        ),
        "2/IM1.txt": "Clear.",
        "1/IM1.txt": "Another text.",
    }
    project = ingested(tmp_path, files)
    assert reports(project) == {
        "1.2.1": "HISTORY: Cough. FINDINGS: Herz nicht vergrößert, Lunge frei. Diameter: 3.5 cm "
        "Pneumonia IMPRESSION: No change.",
        "1.2.2": "Clear.",
    }
    found = {p: r for p, r in reasons(project).items() if r != "companion"}
    assert found == {"1/IM1.txt": "superseded_report"}
    assert "reports: 3 in = 2 taken + 1 rejected" in said(project)
    assert "structured report of the study: 1" in said(project)


def test_messages_and_resources_the_latest_final_one_counts(tmp_path: Path) -> None:
    def order(number: int, status: str, hour: str, text: str) -> str:
        request = f"OBR|1||A{number}|||||||||||||||||||202401021{hour}00|||{status}"
        return message(request, f"OBX|1|TX|x||{text}")

    resource = {"resourceType": "DiagnosticReport", "status": "final", "conclusion": "By FHIR.",
                "identifier": [{"value": "A3"}]}  # fmt: skip
    files: Files = {
        **images(4),
        "out/batch.hl7": order(1, "F", "01", "First.") + order(1, "C", "03", "Corrected.")
        + order(1, "F", "02", "Later.") + order(2, "F", "01", "Final.")
        + order(2, "P", "09", "Wet."),
        "out/MSG0001.txt": order(4, "F", "01", "In a text."),
        "r.ndjson": json.dumps(resource) + "\n",
        "other.json": '{"a": 1}',
        "bundle.json": json.dumps({"resourceType": "Bundle", "entry": [
            {"resource": {**resource, "identifier": [{"value": number}]}} for number in ("A7", "A8")
        ]}),
    }  # fmt: skip
    project = ingested(tmp_path, files)
    beside = parquet.read_table(project.companions)
    kinds = dict(zip(beside["path"].to_pylist(), beside["what"].to_pylist(), strict=True))
    assert kinds["out/batch.hl7"] == kinds["bundle.json"] == "file of reports"
    assert (kinds["r.ndjson"], kinds["other.json"]) == ("report", "data")
    assert reports(project) == {
        "1.2.1": "Corrected.", "1.2.2": "Final.", "1.2.3": "IMPRESSION: By FHIR.",
        "1.2.4": "In a text.",
    }  # fmt: skip
    assert reasons(project) == {
        **dict.fromkeys(
            ("out/batch.hl7#1", "out/batch.hl7#3", "out/batch.hl7#5"), "superseded_report"
        ),
        **dict.fromkeys(("bundle.json#1", "bundle.json#2"), "report_without_study"),
    }
    assert "DOE" not in (project.root / "data/studies.parquet").read_bytes().decode("latin-1")


def test_files_with_messages_that_hold_none_cost_themselves_only(tmp_path: Path) -> None:
    text = message("OBR|1||A1", "OBX|1|TX|x||One.")
    wrong: Files = {"empty.hl7": "", "noise.hl7": "garbage", "head.hl7": "MSH", "a.hl7": "MSH|"}
    files: Files = {**images(2), **wrong, "b.hl7": "\ufeff" + text, "c.hl7": "MSH\x80\r" + text}
    files["t/mark.txt"] = "\ufeff" + message("OBR|1||A2", "OBX|1|TX|x||Two.")
    files |= {"r.csv": "", "deep.json": '{"resourceType": "' + "[" * 100_000}
    project = ingested(tmp_path, files)
    assert reports(project) == {"1.2.1": "One.", "1.2.2": "Two."}
    found = reasons(project)
    assert {found[name] for name in wrong} == {"not_a_report"}
    assert {found.pop(name, "") for name in ("b.hl7", "c.hl7")} <= {"", "superseded_report"}


def test_by_path_of_an_image(tmp_path: Path) -> None:
    files = images(3, "a/{n}/IM1.dcm")
    rows = "path,report\n/export/a/1/IM1.dcm,One.\na\\2\\IM1.dcm,Two.\nIM1.dcm,Which?\n"
    project = ingested(tmp_path, {**files, "r.csv": rows})
    assert reports(project) == {"1.2.1": "One.", "1.2.2": "Two."}
    assert reasons(project) == {"r.csv#4": "ambiguous_report"}


def test_several_reports_may_be_none(tmp_path: Path) -> None:
    rows = "accession,report\nA1,One.\nA1,Other.\nA2,Same.\nA2,Same.\n"
    project = ingested(tmp_path, {**images(2), "r.csv": rows}, several_reports="none")
    assert reports(project) == {"1.2.2": "Same."}
    assert reasons(project) == {
        "r.csv#2": "ambiguous_report", "r.csv#3": "ambiguous_report",
        "r.csv#5": "superseded_report",
    }  # fmt: skip


def test_one_new_row_reads_one_row(tmp_path: Path) -> None:
    rows = [f"A{n},Report {n}.\n" for n in range(1, 6)]
    project = ingested(tmp_path, {**images(6), "r.csv": "accession,report\n" + "".join(rows)})
    archive = tmp_path / "archive"
    (archive / "r.csv").write_text("accession,report\nA6,New.\n" + "".join(rows))
    run(project)
    assert "5 reports known from before, 1 new" in said(project)
    assert reports(project)["1.2.6"] == "New."
    rows[2] = "A3,Amended.\n"
    (archive / "r.csv").write_text("accession,report\nA6,New.\n" + "".join(rows))
    run(project)
    assert "5 reports known from before, 1 new" in said(project)
    assert reports(project)["1.2.3"] == "Amended."


def test_local_yaml_names_table_and_columns_and_a_change_is_noticed(tmp_path: Path) -> None:
    rows = "k;one;two\nA1;First.;Second.\n"
    files: Files = {**images(1), "t.csv": rows, "other.csv": "accession,report\nA1,Wrong.\n"}
    source = write_tree(tmp_path / "archive", files)
    project = write_project(tmp_path / "project", source, workers=1, deid=KEPT)

    def state(**stated: object) -> None:
        values = {"paths": {"source": str(source)}, "workers": 1, "reports": stated}
        with project.local.open("w") as handle:
            YAML(typ="safe").dump(values, handle)

    def change() -> str:
        places = input_folders.places(project)
        return input_folders.change(project, "source", places=places, known=None)

    state(table="t.csv", accession="k", text=["one"])
    run(project)
    assert reports(project) == {"1.2.1": "First."}
    assert change() == ""
    state(table="t.csv", accession="k", text=["two"])
    assert "reports" in change()
    run(project)
    assert reports(project) == {"1.2.1": "Second."}
    assert change() == ""
    for wrong in ({"table": "gone.csv"}, {"table": "t.csv"}, {"accession": "nowhere"}):
        state(**wrong)
        with pytest.raises(SourceError, match="local.yaml names|that local.yaml names"):
            run(project)


def test_two_names_of_one_report_must_agree(tmp_path: Path) -> None:
    rows = "StudyInstanceUID,accession,report\n1.2.1,A2,Whose?\n1.2.1,A1,One.\n,A2,Two.\n"
    archive = open_archive(tmp_path, sorted(write_tree_paths(tmp_path, {"r.csv": rows})))
    known = KnownStudies(
        {"1.2.1": ["a.dcm"], "1.2.2": ["b.dcm"]}, study_key=str, accession_key=str,
        by_accession={"A1": "1.2.1", "A2": "1.2.2"},
    )  # fmt: skip
    matches = archive.match_reports(known)
    assert {study: [m.path for m in found] for study, found in matches.reports.items()} == {
        "1.2.1": ["r.csv#3"], "1.2.2": ["r.csv#4"],
    }  # fmt: skip
    assert matches.refused["r.csv#2"].reason == "ambiguous_report"


def write_tree_paths(folder: Path, files: Files) -> list[str]:
    write_tree(folder, {**files, "a.dcm": b"", "b.dcm": b""})
    return [*files, "a.dcm", "b.dcm"]


def test_the_order_of_several_reports() -> None:
    class Nothing:
        reports = ()
        images = ()

    def result(path: str, **fields: Any) -> ReportResult:
        return ReportResult(path=path, text=path, **fields)

    ordered = [
        (1, result("d", status="corrected", written="20240102")),
        (1, result("c", status="final", written="20240102")),
        (1, result("b", status="final", written="20240101")),
        (1, result("a", status="", written="")),
        (2, result("e", status="corrected", written="20250101")),
        (1, result("f", status="preliminary", written="20260101")),
    ]
    while ordered:
        found = [ReportMatch(rank, report.path, "rule") for rank, report in reversed(ordered)]
        results = in_order(as_table([report for _, report in ordered]))
        judged = study_tables.judge_reports(Nothing(), Matches.of({"s": found}), results)  # type: ignore[arg-type]
        assert judged.taken["path"].to_pylist() == [ordered.pop(0)[1].path]
        assert len(judged.rejects) == len(ordered)


def test_a_name_and_a_place_that_contradict_each_other_are_nobody_s(tmp_path: Path) -> None:
    """Folders counted from 1 and accession numbers too: P1 had the text of P3."""
    files: Files = {
        f"{n}/IM1": image(n, patient=f"P{n}", study=f"1.2.{n}", AccessionNumber=number)
        for n, number in enumerate(("3", "1", "2"), start=1)
    }
    files |= {f"{n}/befund.txt": f"Text {n}." for n in (1, 2, 3)}
    files["x/IM1"] = image(4, patient="P4", study="1.2.4", AccessionNumber="A004")
    files["y/IM1"] = image(5, patient="P5", study="1.2.5", AccessionNumber="A005")
    files |= {"x/A005.txt": "Of five?", "x/A004.txt": "Four.", "reports/a005.txt": "Five."}
    for n, name in ((6, "2023-12-01"), (7, "2024-01-05")):
        files[f"{n}/IM1"] = image(n, patient=f"P{n}", study=f"1.2.{n}", StudyDate="20240105")
        files[f"{n}/{name}.txt"] = f"Dated {n}."
    project = ingested(tmp_path, files)
    assert reports(project) == {"1.2.4": "Four.", "1.2.5": "Five.", "1.2.7": "Dated 7."}
    wrong = ("1/befund.txt", "2/befund.txt", "3/befund.txt", "x/A005.txt", "6/2023-12-01.txt")
    assert reasons(project) == dict.fromkeys(wrong, "ambiguous_report")


def test_accession_numbers_as_spreadsheets_write_them(tmp_path: Path) -> None:
    files = {
        f"i/{n}": image(n, patient=f"P{n}", study=f"1.2.{n}", AccessionNumber=number)
        for n, number in enumerate(("0001", "0002", "b3"), start=1)
    }
    rows = 'accession,report\n="0001",One.\n\'0002,Two.\nB3,Three.\n'
    project = ingested(tmp_path, {**files, "r.csv": rows})
    assert reports(project) == {"1.2.1": "One.", "1.2.2": "Two.", "1.2.3": "Three."}


def test_a_withdrawal_takes_back_what_was_written_before_it(tmp_path: Path) -> None:
    def order(number: int, status: str, hour: str, text: str) -> str:
        request = f"OBR|1||A{number}|||||||||||||||||||202401021{hour}00|||{status}"
        return message(request, f"OBX|1|TX|x||{text}")

    def resource(number: int, status: str, **fields: str) -> str:
        identifier = [{"value": f"A{number}"}]
        found = {"resourceType": "DiagnosticReport", "status": status, "conclusion": "By FHIR."}
        return json.dumps({**found, "identifier": identifier, **fields}) + "\n"

    files: Files = {
        **images(6),
        "m.hl7": order(1, "F", "01", "One.") + order(1, "X", "02", "One.")
        + order(2, "X", "01", "x") + order(2, "C", "02", "Two."),
        "r.ndjson": resource(3, "final", issued="2024-01-02") + resource(4, "final")
        + resource(3, "entered-in-error", issued="2024-01-03T01:00:00"),
        "r.csv": "accession,report,status\nA5,Five.,final\nA5,,annulliert\nA6,Six.,who knows\n",
    }  # fmt: skip
    project = ingested(tmp_path, files)
    assert reports(project) == {
        "1.2.2": "Two.", "1.2.4": "IMPRESSION: By FHIR.", "1.2.6": "Six."
    }  # fmt: skip
    assert reasons(project) == dict.fromkeys(
        ("m.hl7#1", "m.hl7#2", "m.hl7#3", "r.ndjson#1", "r.ndjson#3", "r.csv#2", "r.csv#3"),
        "report_withdrawn",
    )
    assert "1 reports have a status of no known meaning" in said(project)


def test_nothing_is_guessed_of_several_reports_of_equal_worth(tmp_path: Path) -> None:
    rows = "accession,report,status,reportdate\nA1,One.,,\nA1,Other.,,\nA2,Same.,,\nA2,Same.,,\n"
    rows += "A3,Old.,,\nA3,Final.,final,\nA4,Older.,,20240101\nA4,Newer.,,20240102\n"
    project = ingested(tmp_path, {**images(4), "r.csv": rows})
    assert reports(project) == {"1.2.2": "Same.", "1.2.3": "Final.", "1.2.4": "Newer."}
    found = reasons(project)
    assert {found[f"r.csv#{n}"] for n in (2, 3)} == {"ambiguous_report"}
    assert {found[f"r.csv#{n}"] for n in (5, 6, 8)} == {"superseded_report"}
    project = ingested(tmp_path / "2", {**images(4), "r.csv": rows}, several_reports="first")
    assert reports(project)["1.2.1"] == "One."


def test_texts_and_documents_that_are_no_reports(tmp_path: Path) -> None:
    texts = {
        1: '{"a": [1, 2]}', 2: "accession;report\nA2;Clear.\n",
        3: "(0008,0005) CS [ISO_IR 100]\n(0008,0060) CS [DX]\n", 4: "[Portable] Clear.",
    }  # fmt: skip
    files: Files = {**images(6), **{f"{n}/b.txt": text for n, text in texts.items()}}
    files |= {"5/b.pdf": "%PDF-1.4", "A6.docx": "PK", "4/b.pdf": "%PDF-1.4"}
    project = ingested(tmp_path, files)
    assert reports(project) == {"1.2.4": "[Portable] Clear."}
    wrong = ("1/b.txt", "2/b.txt", "3/b.txt", "5/b.pdf", "A6.docx")
    assert reasons(project) == dict.fromkeys(wrong, "report_format")


def test_tables_that_are_not_read_are_said(tmp_path: Path) -> None:
    files: Files = {
        **images(2), "r.txt": "sep=;\naccession;report\nA1;One.\n", "A2.txt": "Two.",
        "a.csv": "patient,report\nP1,x\n", "b.csv": "accession,label\nA1,0\n", "c.xlsx": "PK",
    }  # fmt: skip
    project = ingested(tmp_path, files)
    assert reports(project) == {"1.2.1": "One.", "1.2.2": "Two."}
    assert "not read as reports: 3 tables" in said(project)


def test_a_row_of_another_patient_is_nobody_s(tmp_path: Path) -> None:
    """Accession numbers are typed by hand; the patient beside them tells a wrong one."""
    rows = (
        "accession;MRN;report\nA1;P1;One.\nA2;P3;Three's.\nA3;;Three.\nA4;p4;Four.\nA5;77;Five.\n"
    )
    files = {
        **images(4),
        "5/IM1.dcm": image(5, patient="0077", study="1.2.5", AccessionNumber="A5"),
    }
    project = ingested(tmp_path, {**files, "r.csv": rows})
    assert reports(project) == {
        "1.2.1": "One.", "1.2.3": "Three.", "1.2.4": "Four.", "1.2.5": "Five.",
    }  # fmt: skip
    assert reasons(project) == {"r.csv#3": "patient_mismatch"}
    assert "report patient_mismatch: 1" in said(project)
    local = YAML(typ="safe").load(project.local.read_text())
    with project.local.open("w") as handle:
        YAML(typ="safe").dump({**local, "reports": {"patient": "none"}}, handle)
    run(project)
    assert reports(project)["1.2.2"] == "Three's."


def test_a_structured_report_by_its_accession_number(tmp_path: Path) -> None:
    """Reporting systems give a report a study of its own, and the number of the images' study."""
    files: Files = {
        **images(4),
        "sr/1": whole_report(study="1.2.77", number=1, AccessionNumber="A1", PatientID="P1"),
        "sr/2": whole_report(study="1.2.78", number=2, AccessionNumber="A2", PatientID="P1"),
        "sr/3": whole_report(study="1.2.79", number=3, AccessionNumber="A9", PatientID="P3"),
        "sr/4": whole_report(study="1.2.4", number=4),
        "sr/5": whole_report(study="1.2.80", number=5, AccessionNumber="A4", PatientID="P4"),
    }
    project = ingested(tmp_path, files)
    assert set(reports(project)) == {"1.2.1", "1.2.4"}
    assert reasons(project) == {"sr/5": "superseded_report"}
    lines = said(project)
    assert "structured report by accession number: 1" in lines
    assert "2 companions (structured report 2)" in lines


def test_a_leaflet_in_a_study_s_folder_is_no_report(tmp_path: Path) -> None:
    names = ["info.txt", "INFO2.TXT", "Patienteninformation.txt", "Hinweise.txt"]
    leaflets: Files = {f"{n}/{name}": "Insert the CD." for n, name in enumerate(names, start=1)}
    project = ingested(tmp_path, {**images(5), **leaflets, "5/report_info.txt": "Clear."})
    assert reports(project) == {"1.2.5": "Clear."}
    assert reasons(project) == {}


def test_a_message_in_utf_16_in_a_txt_and_a_group_of_orders(tmp_path: Path) -> None:
    group = message("OBR|1||A7|", "OBR|2||A2|", "OBX|1|TX|x||Größe normal.").encode("utf-16")
    both = message("OBR|1||A1|", "OBR|2||A3|", "OBX|1|TX|x||Of two studies.")
    project = ingested(tmp_path, {**images(3), "x/m.txt": group, "x/n.hl7": both})
    assert reports(project) == {"1.2.2": "Größe normal."}
    assert reasons(project) == {"x/n.hl7": "ambiguous_report"}
