"""Tables of reports: whatever a spreadsheet or a database writes is taken row by row."""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from lapvqa.errors import DicomError, SourceError
from lapvqa.ingest.archives.report_table import ReportTable, open_table, why_not
from lapvqa.machine import ReportSources

NONE = ReportSources()
Rows = Sequence[Sequence[str]]


def written(rows: Rows, delimiter: str = ",", end: str = "\r\n") -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, lineterminator=end).writerows(rows)
    return stream.getvalue()


def opened(file: Path, data: str | bytes, stated: ReportSources = NONE) -> ReportTable:
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    table = open_table(file, stated)
    assert table is not None
    return table


def content(table: ReportTable) -> list[tuple[str, str]]:
    """Of each row its first name and its text, or the reason why it has none."""
    found = []
    for row in table.rows:
        name = next(
            iter((*row.names.study_uids, *row.names.accessions, *row.names.image_paths)), ""
        )
        try:
            assert row.refusal is None
            found.append((name, table.text(row).text))
        except DicomError as error:
            found.append((name, error.reason))
        except AssertionError:
            assert row.refusal is not None
            found.append(("", row.refusal.reason))
    return found


CELL = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"))
KEY = st.from_regex(r"[A-Z]{1,3}[0-9]{1,5}", fullmatch=True)
TEXT = CELL.map(lambda text: f"x{text}y")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.lists(st.tuples(KEY, TEXT, CELL), min_size=1),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.booleans(),
)  # fmt: skip
def test_any_table_is_read_as_the_csv_module_wrote_it(
    tmp_path: Path, rows: list[tuple[str, str, str]], delimiter: str, end: str, encoding: str,
    packed: bool,
) -> None:  # fmt: skip
    header = ("Accession Number", "Report Text", "Comment")
    data = written([header, *rows], delimiter, end).encode(encoding)
    file = tmp_path / ("t.csv.gz" if packed else "t.csv")
    table = opened(file, gzip.compress(data) if packed else data)
    plain = [(key, text) for key, text, _ in rows if "<" not in text and "{" not in text]
    assert [pair for pair in content(table) if pair in plain] == plain
    assert [row.number for row in table.rows] == list(range(2, len(rows) + 2))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Herz nicht vergrößert."),
        ("gb18030", "双肺纹理清晰，未见明显实变影。心影大小正常。"),
        ("cp932", "両肺野に明らかな浸潤影は認めません。表示ソ"),
        ("euc_kr", "양측 폐야에 활동성 병변은 없습니다."),
        ("utf-16", "所见：正常 größer"),
    ],
)
def test_encodings_are_found_for_the_table_as_a_whole(
    tmp_path: Path, encoding: str, text: str
) -> None:
    rows = [("accession", "report"), *((f"A{n}", "normal") for n in range(50)), ("A99", text)]
    table = opened(tmp_path / "t.csv", written(rows).encode(encoding))
    assert content(table)[-1] == ("A99", text)
    assert len(table.rows) == 51


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (["StudyInstanceUID", "text"], ("1.2.3", None)),
        (["study_iuid", "findings", "impression"], ("1.2.3", None)),
        (["Anforderungsnummer", "Befund", "Beurteilung"], (None, "1.2.3")),
        (["检查号", "影像所见", "诊断意见"], (None, "1.2.3")),
        (["受付番号", "所見", "診断"], (None, "1.2.3")),
        (["Número de acceso", "Informe"], (None, "1.2.3")),
        (["study_id", "report"], ("1.2.3", None)),
    ],
)
def test_columns_are_known_in_several_languages(
    tmp_path: Path, header: list[str], names: tuple[str | None, str | None]
) -> None:
    cells = ["1.2.3", "Heart\nnormal.", "Clear."][: len(header)]
    table = opened(tmp_path / "t.csv", written([header, cells]))
    (row,) = table.rows
    assert (row.names.study_uids or (None,))[0] == names[0]
    assert (row.names.accessions or (None,))[0] == names[1]
    expected = (
        "Heart\nnormal." if len(header) == 2
        else "\n FINDINGS: Heart normal.\n IMPRESSION: Clear."
    )  # fmt: skip
    assert table.text(row).text == expected


def test_columns_named_in_local_yaml(tmp_path: Path) -> None:
    data = written([("k1", "k2", "one", "two"), ("x", "A1", "Größe", "b")], "~").encode("cp850")
    stated = ReportSources(accession="K2", text=["two", "One"], delimiter="~", encoding="cp850")
    table = opened(tmp_path / "t.csv", data, stated)
    assert content(table) == [("A1", "b\nGröße")]
    assert table.text(table.rows[0]).encoding == "cp850"
    wrong = ReportSources(accession="k3", delimiter="~")
    assert open_table(tmp_path / "t.csv", wrong) is None
    with pytest.raises(SourceError, match="'k3'"):
        open_table(tmp_path / "t.csv", wrong.model_copy(update={"table": "t.csv"}))
    (tmp_path / "labels.csv").write_text("accession,label\nA1,0\n")
    assert open_table(tmp_path / "labels.csv", NONE) is None


def test_each_row_is_taken_or_refused_and_none_vanishes(tmp_path: Path) -> None:
    data = (
        "accession,report,status\n"
        "A1,Clear.,final\n"
        "A2,too, many, cells\n"
        "A3\n"
        '"A4","two\nlines with ""quotes"", and commas",final\n'
        "\n"
        'A5,"a mark is missing,final\n'
        "A6,Normal six.,final\n"
        'A7,5" tube,final\n'
        "A8,,final\n"
        "A9,Gone.,deleted\n"
        "A10,left out\n"
    )
    assert content(opened(tmp_path / "t.csv", data)) == [
        ("A1", "Clear."), ("", "bad_report"), ("", "bad_report"),
        ("A4", 'two\nlines with "quotes", and commas'), ("", "bad_report"),
        ("A6", "Normal six."), ("A7", '5" tube'), ("A8", "not_a_report"),
        ("A9", "report_withdrawn"), ("A10", "left out"),
    ]  # fmt: skip


def test_an_open_quote_in_the_middle_costs_its_row_only(tmp_path: Path) -> None:
    rows = [f'A{n},"text {n}\nmore",x\n' for n in range(2000)]
    rows[500] = 'A500,"never closed,x\n'
    table = opened(tmp_path / "t.csv", "accession,report,other\n" + "".join(rows))
    taken = {name: text for name, text in content(table) if name}
    assert taken == {f"A{n}": f"text {n}\nmore" for n in range(2000) if n != 500}


def test_a_bad_byte_costs_its_row_only(tmp_path: Path) -> None:
    rows = [f"A{n},Größe {n}\n".encode() for n in range(40)]
    rows[7] = b"A7,Gr\xf6\xdfe\n"
    table = opened(tmp_path / "t.csv", b"accession,report\n" + b"".join(rows))
    found = content(table)
    assert found.pop(7) == ("", "report_encoding")
    assert found == [(f"A{n}", f"Größe {n}") for n in range(40) if n != 7]


def test_a_row_s_stamp_changes_with_the_row_alone(tmp_path: Path) -> None:
    header, rows = "accession,report\n", [f"A{n},text {n}\n" for n in range(9)]

    def stamps(*parts: str) -> list[tuple[int, int]]:
        return [row.stamp for row in opened(tmp_path / "t.csv", "".join(parts)).rows]

    before = stamps(header, *rows)
    assert len(set(before)) == 9
    assert stamps(header, "B1,new\n", *rows)[1:] == before
    assert stamps(header, *rows[:4], "A4,changed\n", *rows[5:])[:4] == before[:4]
    assert stamps(header, *rows, "B1,größer\n")[:9] == before
    assert not set(stamps("accession,findings\n", *rows)) & set(before)


def test_a_table_that_changes_while_it_is_read_says_so(tmp_path: Path) -> None:
    table = opened(tmp_path / "t.csv", "accession,report\nA1,one\n")
    (tmp_path / "t.csv").write_text("accession,report\nA1,two\n")
    with pytest.raises(DicomError) as caught:
        table.text(table.rows[0])
    assert caught.value.reason == "changed"


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    columns = {"accession": ["A1", None, "A3"], "findings": ["one\nmore", "two", None],
               "impression": ["x", "y", "größer"]}  # fmt: skip
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    rows = zip(*columns.values(), strict=True)
    data = written([list(columns), *([cell or "" for cell in row] for row in rows)])
    packed = open_table(tmp_path / "t.parquet", NONE)
    assert packed is not None
    assert content(packed) == content(opened(tmp_path / "t.csv", data))
    assert [row.number for row in packed.rows] == [2, 3, 4]


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    for name, data in (("t.parquet", b"nothing of the kind"), ("t.csv.gz", b"\x1f\x8b\x08cut")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(
            DicomError, match="expected a (table that can be read|whole gzip)"
        ) as caught:
            open_table(tmp_path / name, NONE)
        assert caught.value.reason == "bad_report"
    (tmp_path / "empty.csv").write_bytes(b"")
    assert open_table(tmp_path / "empty.csv", NONE) is None


def test_what_excel_writes(tmp_path: Path) -> None:
    data = 'sep=;\r\naccession;report;report\r\nA1;"One\\.br\\two_x000D_\nthree";fo\0ur\r\n'
    table = opened(tmp_path / "t.csv", data)
    assert content(table) == [("A1", "One\ntwo\nthree\nfour")]
    assert str(table.columns) == "identifier 'accession' as accession; text 'report', 'report'"


def test_a_large_cell_costs_its_row_only_if_it_is_the_report(tmp_path: Path) -> None:
    large = "x" * (2 << 20)
    rows = [("accession", "report", "picture"), ("A1", "One.", large), ("A2", large, "")]
    table = opened(tmp_path / "t.csv", written(rows))
    assert content(table) == [("A1", "One."), ("A2", "bad_report")]
    with pytest.raises(DicomError, match="1048576 characters, found 2097152"):
        table.text(table.rows[1])


def test_parquet_of_bytes_and_of_numbers(tmp_path: Path) -> None:
    reports = [text.encode("cp1252") for text in ("Herz vergrößert.", "x")] + [b"\xff\x80\x01\x00"]
    numbers = pa.array([1.0, None, 2.0])
    columns = {"accession": numbers, "report": reports}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = open_table(tmp_path / "t.parquet", NONE)
    assert table is not None
    assert content(table)[:2] == [("1", "Herz vergrößert."), ("", "x")]
    assert content(table)[2] in (("2", "report_encoding"), ("2", "bad_report"))


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("patient,report", "no column known as an identifier"),
        ("accession;label", "no column known as text"),
    ],
)
def test_why_a_table_is_not_read(tmp_path: Path, header: str, why: str) -> None:
    (tmp_path / "t.csv").write_text(header + "\nA1,x\n")
    assert open_table(tmp_path / "t.csv", NONE) is None
    assert why_not(tmp_path / "t.csv") == why


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_lines_of_a_report_in_several_rows_are_one(tmp_path: Path, suffix: str) -> None:
    rows = [
        ("A1", "1", "Heart"), ("A2", "2", "second"), ("A1", "2", "is"), ("A1", "3", ""),
        ("A2", "1", "first"), ("A1", "4", "large."), ("A3", "1", "old"), ("A3", "2", "one"),
        ("A3", "1", "new"), ("A3", "2", "other"), ("A4", "", "alone"), ("A4", "", "again"),
    ]  # fmt: skip
    header = ["ACCESSION_NO", "LINE", "NARRATIVE"]
    file = tmp_path / f"r.{suffix}"
    if suffix == "csv":
        file.write_text(written([header, *rows]))
    else:
        columns = [pa.array([int(c) if c.isdecimal() else c or None for c in column])
                   for column in zip(*rows, strict=True)]  # fmt: skip
        parquet.write_table(pa.table(columns, header), file)
    table = open_table(file, NONE)
    assert table is not None
    assert content(table) == [
        ("A1", "Heart\nis\nlarge."), ("A2", "first\nsecond"), ("A3", "old\none"),
        ("A3", "new\nother"), ("A4", "alone"), ("A4", "again"),
    ]  # fmt: skip
    assert [row.number for row in table.rows] == [2, 3, 8, 10, 12, 13]
    assert len({row.stamp for row in table.rows}) == 6


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.lists(TEXT, min_size=1, max_size=4), min_size=1, max_size=5), st.randoms())
def test_however_lines_are_shuffled_each_report_is_whole(
    tmp_path: Path, reports: list[list[str]], random: random.Random
) -> None:
    rows = [(f"A{n}", str(m), text) for n, own in enumerate(reports) for m, text in enumerate(own)]
    random.shuffle(rows)
    table = opened(tmp_path / "r.csv", written([["accession", "line", "report"], *rows]))
    alone = {
        f"A{n}": content(opened(tmp_path / "one.csv", written([["accession", "report"], *(
            ("A", text) for text in own)])))
        for n, own in enumerate(reports)
    }  # fmt: skip
    expected = {key: "\n".join(text for _, text in own) for key, own in alone.items()}
    assert dict(content(table)) == expected
