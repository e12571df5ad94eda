"""What is remembered of files with several reports is what reading them again would find."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_dicom import write_project
from test_deliveries import BUDGET, KEPT, images
from test_hl7 import message
from test_ingest import digests, image, run, said, write_tree

from lapvqa.dicom.reasons import Reason
from lapvqa.ingest.archives import report_sources
from lapvqa.ingest.archives.messages import Hashes, Keys, Names
from lapvqa.ingest.archives.protocol import KnownStudies, Refusal
from lapvqa.ingest.archives.report_index import Content, Entries, Entry, ReportIndex
from lapvqa.ingest.archives.tree import _Index, claims_of
from lapvqa.project import Project


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


HASHES = Hashes(hashed, hashed, hashed, hashed)
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
PATH = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
SOME = st.lists(PATH, max_size=3).map(tuple)
NUMBER = st.integers(0, 2**63 - 1)
REFUSAL = st.builds(
    Refusal, st.sampled_from([Reason.BAD_REPORT, Reason.REPORT_WITHDRAWN]), TEXT, TEXT
)
NAMES = st.builds(Names, SOME, SOME, SOME, SOME, SOME)
CONTENT = st.tuples(
    st.sampled_from(["table", "hl7", "fhir"]),
    st.lists(st.tuples(NAMES, NUMBER, NUMBER, REFUSAL | st.none()), max_size=3),
    TEXT,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.dictionaries(PATH, CONTENT, max_size=4))
def test_an_index_gives_back_what_it_was_told(
    tmp_path: Path, told: dict[str, tuple[str, Any, str]]
) -> None:
    stamps = {path: (number + 1, number) for number, path in enumerate(told)}
    file = tmp_path / "report-index-0.parquet"
    file.unlink(missing_ok=True)
    index = ReportIndex(file, HASHES, stamps)
    contents = {}
    for path, (source, reports, why) in told.items():
        entries = [
            Entry(f"{path}#{number}", path, (number, mark), source, names, (length, mark), refusal)
            for number, (names, length, mark, refusal) in enumerate(reports)
        ]
        contents[path] = index.add(path, Content(entries, source, "" if entries else why))
        assert all(isinstance(entry.names, Keys) for entry in contents[path].entries)
    index.save()
    again = ReportIndex(file, HASHES, stamps)
    for path, content in contents.items():
        recalled = again.recall(path)
        assert recalled is not None
        assert recalled._replace(entries=[*recalled.entries]) == content
    changed = ReportIndex(file, HASHES, {path: (size, 7) for path, (size, _) in stamps.items()})
    assert all(changed.recall(path) is None or stamps[path][1] == 7 for path in told)


STUDIES = [f"S{number}" for number in range(4)]
FEW = st.lists(st.sampled_from(["S0", "S1", "n1", "N1", "n2", "n3", "P0"]), max_size=2).map(tuple)
ONE = st.lists(st.sampled_from(["n1", "n2", "n3", "n9"]), max_size=1).map(tuple)
KNOWN = KnownStudies(
    images={hashed(study): [f"{study}/a.dcm"] for study in STUDIES},
    by_accession={hashed("n1"): hashed("S0"), hashed("n2"): None, hashed("n3"): hashed("S3")},
    by_instance={hashed("n1"): hashed("S1")},
    patients={hashed("S0"): hashed("P0"), hashed("S1"): hashed("P1")},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(st.tuples(st.builds(Names, FEW, FEW | ONE, ONE, st.just(()), FEW | ONE),
                          REFUSAL | st.none()), min_size=1, max_size=6))  # fmt: skip
def test_what_is_remembered_claims_all_at_once_what_it_claims_one_by_one(
    tmp_path: Path, told: list[tuple[Names, Refusal | None]]
) -> None:
    file = tmp_path / "report-index-0.parquet"
    file.unlink(missing_ok=True)
    index = ReportIndex(file, HASHES, {"r.csv": (1, 2)})
    sources = itertools.cycle(["table", "hl7", "fhir"])
    entries = [
        Entry(f"r.csv#{n}", "r.csv", (n,), next(sources), names, (n, n), refusal)
        for n, (names, refusal) in enumerate(told)
    ]
    read = index.add("r.csv", Content(entries, "table"))
    index.save()
    kept = ReportIndex(file, HASHES, {"r.csv": (1, 2)}).recall("r.csv")
    assert kept is not None
    found = []
    for content in (read, kept):
        refused: dict[str, Refusal] = {}
        plain, claims = claims_of(Entries([content.entries]), _Index(KNOWN), refused)
        rows = {tuple(row.values()) for row in plain.to_pylist()}
        rows |= {(study, match.rank, match.path, match.rule) for match, study in claims}
        found.append((rows, refused, len(plain) + len(claims)))
    assert found[0] == found[1]


def delivery() -> dict[str, bytes | str]:
    """Reports of every kind that holds several, good and bad ones."""
    fhir = [
        {"resourceType": "DiagnosticReport", "status": "final", "conclusion": "From FHIR.",
         "identifier": [{"value": number}]}
        for number in ("A3", "A8")
    ]  # fmt: skip
    rows = 'accession;MRN;report\nA1;P1;Of a table.\nA2;P9;Of another.\nA7;;Of nobody.\n"A8;x\n'
    lines = "accession,line,narrative\nA4,2,second\nA4,1,first\nA2,1,lone\n"
    return {
        **images(6),
        "r.csv": rows, "lines.csv": lines, "other.csv": "name,age\nx,3\n",
        "broken.parquet": b"PAR1 no", "x.json": "\n".join(map(json.dumps, fhir)),
        "settings.json": '{"a": 1}', "m/one.hl7": message("OBR|1||A5|", "OBX|1|TX|x||Of HL7."),
        "m/two.txt": message("OBR|1||A6|", "OBX|1|TX|x||In a text."),
        "m/none.hl7": message("PV1|1"), "t.txt": "accession,report\nA2,As a text.\n",
    }  # fmt: skip


def everything(project: Project) -> tuple[object, ...]:
    shutil.rmtree(project.root / "data")
    shutil.rmtree(project.work_dir("ingest") / "last", ignore_errors=True)
    counts = run(project)
    lines = [line for line in said(project).splitlines() if "known from before" not in line]
    return digests(project), counts, lines


def test_files_that_did_not_change_are_not_read_and_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tree(tmp_path / "archive", delivery())
    project = write_project(
        tmp_path / "project", source, workers=1, reject_budget=BUDGET, deid=KEPT
    )
    run(project)
    assert list(project.work_dir("ingest").glob("report-index-*.parquet"))
    asked: Counter[str] = Counter()
    for name in ("open_table", "read_loose"):
        original = getattr(report_sources, name)

        def counting(*arguments: Any, name: str = name, own: Any = original, **more: Any) -> Any:
            asked[name] += 1
            return own(*arguments, **more)

        monkeypatch.setattr(report_sources, name, counting)
    remembered = everything(project)
    assert asked == {}

    def anew() -> tuple[object, ...]:
        for index in project.work_dir("ingest").glob("report-index-*.parquet"):
            index.unlink()
        return everything(project)

    assert anew() == remembered
    # A new study, and then a table that says something else, read no other file again.
    (source / "7").mkdir()
    (source / "7/IM1.dcm").write_bytes(image(7, patient="P7", study="1.2.7", AccessionNumber="A7"))
    everything(project)  # its report's text is read
    asked.clear()
    with_study = everything(project)
    assert asked == {}
    assert anew() == with_study
    text = (source / "r.csv").read_text().replace("Of a table.", "Of it, new.")
    (source / "r.csv").write_text(text)
    os.utime(source / "r.csv", ns=(1, 1))
    asked.clear()
    changed = everything(project)
    assert asked["open_table"] == 1
    assert anew() == changed != with_study
