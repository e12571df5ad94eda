"""Reports in one table: CSV, TSV, semicolons or bars, plain or gzipped, or Parquet.

A table of reports has a column that names the study (Study Instance UID, Accession Number, SOP
Instance UID or an image's path) and one or more of text. Columns are found by what they are called,
in several languages, or named in local.yaml. Rows are numbered as a spreadsheet numbers them: the
header is row 1.

The table is read once from end to end, without keeping its texts: of each row its names, its place
and a digest are kept, and a text is read again where it lies. A row that has not as many cells as
the header, or that is in no known encoding, is refused and the next one read.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO, Protocol

from lapvqa.dicom.reasons import Reason, as_reason
from lapvqa.errors import DicomError, SourceError
from lapvqa.ingest.archives import members
from lapvqa.ingest.archives.encodings import UTF8, decode, detect
from lapvqa.ingest.archives.headings import compose, heading_of, squeeze
from lapvqa.ingest.archives.markup import plain
from lapvqa.ingest.archives.messages import Names, stamp_of_bytes
from lapvqa.ingest.archives.protocol import (
    MAX_REPORT_BYTES,
    OTHER_STATUS,
    Refusal,
    ReportText,
    Withdrawn,
)
from lapvqa.machine import ReportSources

_MAX_CELL = 16 << 20
"""Of a cell that nobody reads, such as a picture in base64 beside the report."""
csv.field_size_limit(_MAX_CELL)
SUFFIXES = (".csv", ".tsv", ".tab", ".psv", ".parquet")
_DELIMITERS = (",", ";", "\t", "|")
_MAX_HEADER = 1 << 16
_FAULTS = 2000  # lines, after which a table's encoding is judged
_MAX_UNPACKED = 4 << 30
_KINDS: Mapping[str, tuple[str, ...]] = {
    "study": (
        "studyinstanceuid", "studyuid", "studyiuid", "studyinstance", "dicomstudyuid",
        "studieninstanzuid", "uidestudio", "uidetude", "检查uid", "検査uid",
    ),
    "accession": (
        "accessionnumber", "accession", "accessionno", "accessionnum", "accessionid", "accnumber",
        "accno", "accnum", "acc", "anforderungsnummer", "auftragsnummer", "untersuchungsnummer",
        "numerodeacceso", "numeroacceso", "numerodaccession", "numeroaccession", "numerodeacesso",
        "numeroacesso", "检查号", "检查编号", "檢查號", "受付番号", "オーダー番号", "접수번호",
    ),
    "any": ("studyid", "study", "examid", "exam", "idestudio", "studien id", "untersuchung"),
    "instance": ("sopinstanceuid", "sopuid", "instanceuid", "imageuid"),
    "path": (
        "path", "filepath", "filename", "file", "dicompath", "dicomfile", "imagepath", "imagefile",
        "imagefilename", "imageid", "image", "pfad", "datei", "dateiname", "dateipfad", "archivo",
        "ruta", "fichier", "chemin", "arquivo", "caminho", "文件名", "文件", "路径", "ファイル名",
        "파일명",
    ),
    "patient": (
        "patientid", "patid", "patientidentifier", "patientnumber", "patientno", "pid", "mrn",
        "medicalrecordnumber", "subjectid", "patientenid", "patientennummer", "patientennr",
        "idpaciente", "numeropaciente", "nhc", "historiaclinica", "idpatient", "numeropatient",
        "ipp", "idpaziente", "prontuario", "patientnummer", "患者id", "患者编号", "病人id",
        "患者番号", "환자번호",
    ),
    "line": (
        "line", "lineno", "linenumber", "linenum", "lineid", "textline", "reportline", "rowno",
        "seq", "seqno", "sequence", "sequenceno", "sequencenumber", "setid", "obxsetid", "obxid",
        "zeile", "zeilennr", "zeilennummer", "lfdnr", "linea", "nlinea", "numerolinea", "renglon",
        "ligne", "numeroligne", "linha", "numerolinha", "riga", "numeroriga", "regel",
        "regelnummer", "行号", "行番号",
    ),
    "text": (
        "report", "reporttext", "reportbody", "text", "fulltext", "radiologyreport", "narrative",
        "body", "content", "contents", "bericht", "befundbericht", "berichtstext", "informe",
        "textoinforme", "reporte", "compterendu", "cr", "laudo", "relatorio", "referto", "verslag",
        "报告", "报告内容", "报告文本", "報告", "検査報告", "レポート", "読影レポート", "판독문",
        "판독",
        "протокол",
    ),
    "status": ("status", "reportstatus", "resultstatus", "berichtstatus", "befundstatus", "estado"),
    "written": (
        "reportdate", "reportdatetime", "reporttime", "signeddate", "signedat", "verifieddate",
        "finalizeddate", "dictateddate", "updatedat", "befunddatum", "berichtsdatum",
        "fechainforme", "datecompterendu", "datalaudo", "报告时间", "报告日期",
    ),
}  # fmt: skip
_KIND_OF = {squeeze(name): kind for kind, names in _KINDS.items() for name in names}
_STATUS = {
    "f": "final", "final": "final", "signed": "final", "verified": "final", "approved": "final",
    "complete": "final", "completed": "final", "vidiert": "final", "freigegeben": "final",
    "c": "corrected", "corrected": "corrected", "amended": "corrected", "addended": "corrected",
    "p": "preliminary", "preliminary": "preliminary", "draft": "preliminary", "r": "preliminary",
    "unsigned": "preliminary", "vorlaufig": "preliminary", "prelim": "preliminary",
}  # fmt: skip
_WITHDRAWN = frozenset(
    squeeze(word)
    for word in (
        "x", "d", "w", "deleted", "cancelled", "canceled", "withdrawn", "storniert", "retracted",
        "revoked", "voided", "void", "nullified", "invalid", "rejected", "entered-in-error",
        "in error", "error", "aborted", "annulliert", "gelöscht", "ungültig", "verworfen",
        "zurückgezogen", "abgebrochen", "annulé", "supprimé", "retiré", "invalide", "anulado",
        "anulada", "eliminado", "borrado", "cancelado", "cancelada", "rechazado", "retirado",
        "annullato", "cancellato", "geannuleerd", "verwijderd", "ingetrokken", "excluído", "作废",
        "已作废", "撤销", "删除", "取消", "削除", "취소", "삭제", "отменен", "удален",
    )
)  # fmt: skip
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
"""Excel's own first line."""
_LINE_END = re.compile(r"\r\n|\r|\\\.br\\|_x000D_\n?")
"""Line ends: those of files, of HL7 and of XLSX, which exports leave in cells as they are."""
_TIME = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ]?(\d\d):?(\d\d):?(\d\d)?)?")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what, by their place."""

    keys: Sequence[tuple[str, int]]
    """Kind (study, accession, instance, path, any) and place of the columns with names."""
    texts: Sequence[tuple[str, int]]
    """Heading (empty for a lone column) and place of the columns with text."""
    status: int | None
    written: int | None
    number: int
    header: Sequence[str] = ()
    patient: int | None = None
    line: int | None = None
    """Of the number of a line, where a report is several rows."""

    @property
    def beside(self) -> tuple[int | None, ...]:
        """The places of the columns that are neither an identifier nor text."""
        return self.status, self.written, self.patient, self.line

    def __str__(self) -> str:
        """Return which are taken, by what the table calls them."""
        keys = ", ".join(f"{self.header[place]!r} as {kind}" for kind, place in self.keys)
        texts = ", ".join(
            repr(self.header[place]) + (f" as {heading}" if heading else "")
            for heading, place in self.texts
        )
        more = "".join(
            f"; {what} {self.header[place]!r}"
            for what, place in (("patient", self.patient), ("line", self.line))
            if place is not None
        )
        return f"identifier {keys}; text {texts}{more}"


@dataclass(frozen=True, slots=True)
class Row:
    """A row: what it says about its study, and where it lies."""

    number: int
    names: Names
    stamp: tuple[int, int]
    start: int
    end: int
    refusal: Refusal | None
    line: int | None = None
    """Which line of a report it is, where several rows are one."""
    parts: tuple[Row, ...] = ()
    """The rows that are the lines of this report, in their order."""

    @property
    def spans(self) -> tuple[int, ...]:
        """Start, end and stamp of each of its rows, by which ``text_at`` finds it again."""
        rows = self.parts or (self,)
        return tuple(chain.from_iterable((row.start, row.end, *row.stamp) for row in rows))


class _Cells(Protocol):
    """Where the cells of a table lie."""

    columns: Columns

    def rows(self) -> Iterator[Row]: ...

    def text(self, start: int, end: int, stamp: tuple[int, int]) -> ReportText: ...


class ReportTable:
    """A table with reports, open for reading its texts."""

    def __init__(self, cells: _Cells) -> None:
        self.columns = cells.columns
        self._cells = cells

    @cached_property
    def rows(self) -> Sequence[Row]:
        """The reports; the table is read from end to end for them."""
        rows = list(self._cells.rows())
        return rows if self.columns.line is None else _joined(rows)

    def text(self, row: Row) -> ReportText:
        """Return the report of a row; raises DicomError."""
        return self.text_at(row.spans)

    def text_at(self, spans: Sequence[int]) -> ReportText:
        """Return the report that lies there: ``Row.spans``; raises DicomError."""
        rows = [(start, end, (size, mark)) for start, end, size, mark in batched(spans)]
        with as_reason(Reason.BAD_REPORT, "a report in the row"):
            return self._of_lines(rows) if len(rows) > 1 else self._cells.text(*rows[0])

    def _of_lines(self, rows: Sequence[tuple[int, int, tuple[int, int]]]) -> ReportText:
        """Return the report whose lines are ``rows``; an empty one is a line too."""
        found = []
        for row in rows:
            try:
                found.append(self._cells.text(*row))
            except DicomError as error:
                if error.reason != Reason.NOT_A_REPORT:
                    raise
                last = error
        if not found:
            raise last
        text = "\n".join(one.text for one in found)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return replace(found[0], text=text, sha256=digest, written=max(r.written for r in found))


def batched(spans: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield four of ``spans`` at a time."""
    return (spans[start : start + 4] for start in range(0, len(spans), 4))


def _joined(rows: Sequence[Row]) -> list[Row]:
    """Return rows with the lines of each report made one, at the place of the first of them.

    Rows of the same names are a report if no line number comes twice; else each run of them in
    which it grows is one. A row without a number is a report of its own.
    """
    by_names: dict[Names, list[Row]] = {}
    alone = []
    for row in rows:
        if row.refusal is None and row.line is not None:
            by_names.setdefault(row.names, []).append(row)
        else:
            alone.append(row)
    reports = [run for own in by_names.values() for run in _runs(own)]
    return sorted([*alone, *map(_of_parts, reports)], key=lambda row: row.number)


def _runs(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    lines = [row.line or 0 for row in rows]
    if len(set(lines)) == len(lines):
        yield sorted(rows, key=lambda row: row.line or 0)
        return
    starts = [0, *(i for i in range(1, len(rows)) if lines[i] <= lines[i - 1]), len(rows)]
    for start, end in pairwise(starts):
        yield rows[start:end]


def _of_parts(rows: Sequence[Row]) -> Row:
    if len(rows) == 1:
        return rows[0]
    first = min(rows, key=lambda row: row.number)
    every = repr([row.stamp for row in rows]).encode()
    stamp = sum(row.stamp[0] for row in rows), stamp_of_bytes(every)[1]
    return replace(first, stamp=stamp, parts=tuple(rows))


def is_table(path: str) -> bool:
    """Tell whether a file may be a table, by its name."""
    return path.lower().removesuffix(".gz").endswith(SUFFIXES)


def open_table(file: Path, stated: ReportSources, *, whole: bool = True) -> ReportTable | None:
    """Open a table; None if it has no column of names or none of text.

    Not ``whole``: its rows are known, and not read again.
    Raises DicomError BAD_REPORT or UNREADABLE if it is damaged, SourceError if local.yaml names it
    and columns that it has not.
    """
    try:
        cells = _open_parquet(file, stated) if _is_parquet(file) else _open_text(file, stated)
        table = None if cells is None else ReportTable(cells)
        if table is not None and whole:
            _ = table.rows
        return table
    except SourceError:
        if stated.table is None:  # one of several tables, and not the one that is meant
            return None
        raise
    except DicomError as error:  # of a packed table
        reason = Reason.UNREADABLE if error.reason == Reason.UNREADABLE else Reason.BAD_REPORT
        raise DicomError(reason, error.message, exception=error.exception) from None
    except Exception as error:  # noqa: BLE001 - whatever a damaged table makes a parser raise
        name = type(error).__name__
        reason = Reason.UNREADABLE if isinstance(error, OSError) else Reason.BAD_REPORT
        raise DicomError(reason, f"expected a table that can be read, met {name}") from None


def find_columns(header: Sequence[str], stated: ReportSources) -> Columns | None:
    """Return which columns say what; None without a name or a text.

    Raises SourceError if local.yaml names a column that is not there.
    """
    places = {squeeze(name): place for place, name in reversed(list(enumerate(header)))}
    kinds = [(_KIND_OF.get(squeeze(name), ""), place) for place, name in enumerate(header)]
    keys = [(kind, _stated(name, places)) for kind, name in stated.key_columns()]
    if not keys:
        keys = [
            (kind, place)
            for wanted in ("study", "accession", "instance", "any", "path")
            for kind, place in kinds
            if kind == wanted
        ]
    texts = [
        (heading_of(name), place)
        for name in stated.text
        if _stated(name, places) >= 0
        for place, other in enumerate(header)
        if squeeze(other) == squeeze(name)
    ]
    if not texts:
        texts = [("", place) for kind, place in kinds if kind == "text"]
        texts = [pair for pair in texts if squeeze(header[pair[1]]) == squeeze(header[texts[0][1]])]
        sections = [(heading_of(name), place) for place, name in enumerate(header)]
        if not texts or any(heading == "FINDINGS" for heading, _ in sections):
            texts = [pair for pair in sections if pair[0]] or texts
    if not keys or not texts:
        return None
    by_kind = dict(reversed(kinds))
    used = {place for _, place in keys}
    patient = by_kind.get("patient")
    if stated.patient is not None:
        ignored = stated.patient.casefold() == "none" and squeeze("none") not in places
        patient = None if ignored else _stated(stated.patient, places)
    return Columns(
        keys,
        texts if len(texts) > 1 else [("", texts[0][1])],
        by_kind.get("status"),
        by_kind.get("written"),
        len(header),
        header,
        patient if patient not in used else None,
        by_kind.get("line"),
    )


def why_not(file: Path) -> str:
    """Return why a table that ``open_table`` has no columns for is not read."""
    headers = [_header_of_parquet(file)] if _is_parquet(file) else _headers(_beginning(file))
    known = {_KIND_OF.get(squeeze(name), "") for header in headers for name in header}
    if known & {"study", "accession", "instance", "any", "path"}:
        return "no column known as text"
    return "no column known as an identifier"


def is_table_text(text: str) -> bool:
    """Tell whether a text's first line is the header of a table of reports, and more follows."""
    if "\n" not in text.strip():
        return False
    return any(find_columns(header, ReportSources()) for header in _headers(text[:_MAX_HEADER]))


def _headers(text: str) -> Iterator[Sequence[str]]:
    """Yield the first row of a text by each of the delimiters."""
    text = _SEPARATOR.sub("", text)
    for delimiter in _DELIMITERS:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error:
            continue
        if len(header) > 1:
            yield [name.strip() for name in header]


def _beginning(file: Path) -> str:
    source = _opened(file)
    data = source.read(_MAX_HEADER)
    try:
        return decode(data).text
    except DicomError:  # the end may be half a character
        return data.decode("latin-1").lstrip("ï»¿")


def _is_parquet(file: Path) -> bool:
    return file.name.lower().removesuffix(".gz").endswith(".parquet")


def _header_of_parquet(file: Path) -> Sequence[str]:
    from pyarrow import parquet

    names: Sequence[str] = parquet.ParquetFile(_opened(file)).schema_arrow.names
    return names


def _stated(name: str, places: Mapping[str, int]) -> int:
    if squeeze(name) not in places:
        raise SourceError(
            f"local.yaml names the column {name[:40]!r} of the reports, the table has none such",
            hint="correct `reports` in local.yaml by the table's first row",
        )
    return places[squeeze(name)]


def _names(columns: Columns, cell: Callable[[int], str]) -> Names:
    patient = cell(columns.patient).strip() if columns.patient is not None else ""
    patients = (patient,) if patient else ()
    if len(columns.keys) == 1 and columns.keys[0][0] == "accession":  # nearly always
        value = cell(columns.keys[0][1]).strip()
        return Names(accessions=(value,) if value else (), patients=patients)
    uids, accessions, instances, paths = [], [], [], []
    for kind, place in columns.keys:
        value = cell(place).strip()
        if not value:
            continue
        if kind == "study" or (kind == "any" and _UID.fullmatch(value)):
            uids.append(value)
        elif kind in ("accession", "any"):
            accessions.append(value)
        elif kind == "instance":
            instances.append(value)
        else:
            paths.append(value.replace("\\", "/"))
    return Names(tuple(uids), tuple(accessions), tuple(instances), tuple(paths), patients)


def _line(columns: Columns, cell: Callable[[int], str]) -> int | None:
    """Return the number of the line that a row is; None if rows are not lines."""
    written = cell(columns.line).strip() if columns.line is not None else ""
    return int(written) if written.isdecimal() else None


def _text(columns: Columns, cell: Callable[[int], str], encoding: str) -> ReportText:
    """Return the report that a row's cells make; raises DicomError."""
    stated = squeeze(cell(columns.status)) if columns.status is not None else ""
    time = _TIME.match(cell(columns.written).strip()) if columns.written is not None else None
    written = "".join(part or "00" for part in time.groups()) if time and time[4] else ""
    written = written or ("".join(time.groups()[:3]) if time else "")
    if stated in _WITHDRAWN:
        raise Withdrawn("its row says that it does not count", written)
    parts, form = [], "table"
    for heading, place in columns.texts:
        written_here = cell(place)
        if len(written_here) > MAX_REPORT_BYTES:
            detail = f"expected at most {MAX_REPORT_BYTES} characters, found {len(written_here)}"
            raise DicomError(Reason.BAD_REPORT, detail)
        text, found = plain(_LINE_END.sub("\n", written_here.replace("\0", "")))
        form = found if found != "text" else form
        parts.append((heading, text))
    text = compose(parts)
    if not any(char.isalnum() for char in text):
        raise DicomError(Reason.NOT_A_REPORT, "expected text in the row, found none")
    digest = hashlib.sha256(text.encode()).hexdigest()
    status = _STATUS.get(stated, OTHER_STATUS if stated else "")
    return ReportText(text, digest, encoding, form, status, written)


class _TextCells:
    """Rows of a delimited text; a row is decoded, and its text made, when it is asked for."""

    def __init__(self, source: BinaryIO, encoding: str, delimiter: str, columns: Columns) -> None:
        """Take a file whose place is behind its header."""
        self._source, self._encoding, self._delimiter = source, encoding, delimiter
        self.columns = self._columns = columns
        self._start = source.tell()
        source.seek(0)
        header = source.read(self._start)
        # Another header means other texts; another encoding does where it is used.
        self._seed = hashlib.blake2b(header).digest()
        self._seed_beyond_ascii = hashlib.blake2b(header + encoding.encode()).digest()
        self._last_key = ""

    def rows(self) -> Iterator[Row]:
        number, place = 1, self._start
        while True:
            reader = _RowReader(self._source, place, self._encoding, self._delimiter)
            for start, raw, cells, fault in reader:
                if not cells and not fault:
                    continue  # an empty line
                number += 1
                refusal = self._refusal(cells, fault)
                if refusal is None:
                    names = _names(self._columns, cells.__getitem__)
                    self._last_key = cells[self._columns.keys[0][1]]
                    line = _line(self._columns, cells.__getitem__)
                    yield Row(number, names, self._stamp(raw), start, start + len(raw), None, line)
                    continue
                length = self._swallowed(raw) or len(
                    _first_line(raw) if fault in ("quote", "size") else raw
                )
                place = start + length
                yield Row(number, Names(), self._stamp(raw), start, place, refusal)
                if fault or length < len(raw):
                    break
            else:
                return

    def _stamp(self, raw: bytes) -> tuple[int, int]:
        return stamp_of_bytes(raw, self._seed if raw.isascii() else self._seed_beyond_ascii)

    def _refusal(self, cells: list[str], fault: str) -> Refusal | None:
        if fault == "encoding":
            return Refusal(Reason.REPORT_ENCODING, f"expected a row in {self._encoding}")
        if fault == "size":
            detail = f"expected cells of at most {_MAX_CELL} characters, found a larger one"
            return Refusal(Reason.BAD_REPORT, detail)
        if fault:
            return Refusal(Reason.BAD_REPORT, "expected quotation marks in pairs, found one alone")
        number = self._columns.number
        if len(cells) == number:
            return None
        needed = max(place for _, place in (*self._columns.keys, *self._columns.texts))
        # Cells that are empty at the end are often left out, or added.
        if any(cells[number:]) or len(cells) <= needed:
            detail = f"expected {number} cells as in the header, found {len(cells)}"
            return Refusal(Reason.BAD_REPORT, detail)
        cells += [""] * (number - len(cells))
        return None

    def _swallowed(self, raw: bytes) -> int:
        """Return where in a bad row of several lines another row begins, 0 if nowhere.

        A quotation mark that is missing joins rows. Another begins where the name of its study
        looks like that of the row before.
        """
        place = self._columns.keys[0][1]
        start = len(_first_line(raw))
        wanted = _shape(self._last_key)
        while wanted and start < len(raw):
            line = _first_line(raw[start:])
            text = line.decode(self._encoding, "replace")
            cells = next(csv.reader([text[:_MAX_HEADER]], delimiter=self._delimiter), [])
            if len(cells) > place and _shape(cells[place]) == wanted:
                return start
            start += len(line)
        return 0

    def text(self, start: int, end: int, stamp: tuple[int, int]) -> ReportText:
        self._source.seek(start)
        raw = self._source.read(end - start)
        if self._stamp(raw) != stamp:
            raise DicomError(Reason.CHANGED, "the table is no longer as it was listed")
        lines = io.StringIO(raw.decode(self._encoding), newline="")
        cells = next(csv.reader(lines, delimiter=self._delimiter))
        cells += [""] * (self._columns.number - len(cells))
        return _text(self._columns, cells.__getitem__, self._encoding)


class _RowReader:
    """Yields where a row starts, its bytes, its cells and its fault; of no use behind a fault."""

    def __init__(self, source: BinaryIO, place: int, encoding: str, delimiter: str) -> None:
        self._source, self._place = source, place
        self._encoding, self._delimiter = encoding, delimiter
        self._taken: list[bytes] = []
        self._undecodable = False

    def __iter__(self) -> Iterator[tuple[int, bytes, list[str], str]]:
        self._source.seek(self._place)
        # Strict: else a mark that is missing joins two rows to one that looks right, with the
        # report of another study in it.
        reader = csv.reader(self._lines(), delimiter=self._delimiter, strict=True)
        start = self._place
        while True:
            self._taken.clear()
            self._undecodable = False
            try:
                cells, fault = next(reader), ""
            except StopIteration:
                return
            except csv.Error as error:  # a quoted text that goes on behind its end, or is too long
                cells, fault = [], "size" if "limit" in str(error) else "quote"
            raw = b"".join(self._taken)
            if self._undecodable:
                cells, fault = [], "encoding"
            yield start, raw, cells, fault
            start += len(raw)

    def _lines(self) -> Iterator[str]:
        while line := self._source.readline():
            self._taken.append(line)
            try:
                yield line.decode(self._encoding)
            except UnicodeDecodeError:
                self._undecodable = True
                yield line.decode("latin-1")


def _first_line(raw: bytes) -> bytes:
    return raw[: raw.find(b"\n") + 1 or len(raw)]


def _shape(value: str) -> str:
    """Return what kind of name this is: 9 for digits, A for letters, signs as they are."""
    shape = re.sub(r"[^\W\d_]+", "A", re.sub(r"\d+", "9", value.strip()))
    return "9.9" if _UID.fullmatch(value.strip()) else shape


def _open_text(file: Path, stated: ReportSources) -> _TextCells | None:
    source = _opened(file)
    encoding = stated.encoding or _table_encoding(source)
    source.seek(0)
    beginning = source.read(_MAX_HEADER)
    source.seek(0)
    is_wide = encoding.startswith(("utf-16", "utf-32"))
    if is_wide or (b"\r" in beginning and b"\n" not in beginning):
        # Line ends of two bytes, or by CR alone: written again as a whole.
        text = decode(source.read(), stated=encoding).text
        source, encoding = _buffered(text.replace("\r\n", "\n").replace("\r", "\n").encode()), UTF8
    start = len(codecs.BOM_UTF8) if source.read(3) == codecs.BOM_UTF8 else 0
    source.seek(start)
    excel = _SEPARATOR.match(source.readline(16).decode("latin-1"))
    start += excel.end() if excel else 0
    stated_here = stated.delimiter or (excel[1] if excel else None)
    fault_found: SourceError | None = None
    for delimiter in [stated_here] if stated_here else _DELIMITERS:
        for _, raw, header, fault in _RowReader(source, start, encoding, delimiter):
            columns = None
            if not fault and len(raw) < _MAX_HEADER:
                try:
                    columns = find_columns([name.strip() for name in header], stated)
                except SourceError as error:  # with another delimiter it may be there
                    fault_found = error
            if columns is not None:
                source.seek(start + len(raw))
                return _TextCells(source, encoding, delimiter, columns)
            break
    if fault_found is not None:
        raise fault_found
    return None


def _opened(file: Path) -> BinaryIO:
    # Not mapped: a file that is cut meanwhile would kill the process.
    if file.is_file() and not file.name.lower().endswith(".gz"):
        return file.open("rb")
    return _buffered(members.read_at(file, _MAX_UNPACKED))


def _buffered(data: bytes) -> BinaryIO:
    return io.BufferedReader(io.BytesIO(data))


def _table_encoding(source: BinaryIO) -> str:
    """Return the encoding of a table: UTF-8, or what its lines beyond ASCII are by themselves."""
    beginning = source.read(_MAX_HEADER)
    if beginning[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in beginning:
        try:
            return detect(beginning[: len(beginning) // 4 * 4])
        except DicomError:
            pass  # single zero bytes are dropped with their cells
    source.seek(0)
    odd: list[bytes] = []
    faults = 0
    while faults < _FAULTS and (block := source.read(1 << 20) + source.readline()):
        if block.isascii() or _is_utf8(block):
            continue
        for line in block.split(b"\n"):
            if not line.isascii():
                odd.append(line)
                faults += not _is_utf8(line)
    if not faults:
        return UTF8
    try:
        encoding = detect(b"\n".join(odd))
    except DicomError:
        encoding = UTF8
    # A few bad rows of a table in UTF-8 are refused; they do not turn all the others.
    return UTF8 if faults * 10 < len(odd) else encoding


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


class _ParquetCells:
    """Rows of a Parquet file; its columns are kept packed as Arrow keeps them."""

    def __init__(
        self, columns: Columns, cells: Sequence[Sequence[object]], stated: str | None
    ) -> None:
        self.columns = self._columns = columns
        self._cells, self._stated = cells, stated

    def rows(self) -> Iterator[Row]:
        used = self._used
        for index in range(len(self._cells[used[0]])):
            stamp = self._stamp(index)
            names, line, refusal = Names(), None, None
            cell = partial(self._cell, index)
            try:
                names, line = _names(self._columns, cell), _line(self._columns, cell)
            except DicomError as error:
                refusal = Refusal.of(error)
            yield Row(index + 2, names, stamp, index, index, refusal, line)

    def text(self, start: int, end: int, stamp: tuple[int, int]) -> ReportText:
        if end >= len(self._cells[self._used[0]]) or self._stamp(start) != stamp:
            raise DicomError(Reason.CHANGED, "the table is no longer as it was listed")
        return _text(self._columns, partial(self._cell, start), UTF8)

    @cached_property
    def _used(self) -> list[int]:
        places = {place for _, place in (*self._columns.keys, *self._columns.texts)}
        return sorted(places | {place for place in self._columns.beside if place is not None})

    def _stamp(self, index: int) -> tuple[int, int]:
        values = [self._cells[place][index].as_py() for place in self._used]  # type: ignore[attr-defined]
        return stamp_of_bytes(repr(values).encode(), b"parquet")

    def _cell(self, index: int, place: int) -> str:
        value = self._cells[place][index].as_py()  # type: ignore[attr-defined]
        if isinstance(value, float):  # a column of numbers with a gap in it
            value = int(value) if value.is_integer() else None
        if value is None:
            return ""
        return decode(value, stated=self._stated).text if isinstance(value, bytes) else str(value)


def _open_parquet(file: Path, stated: ReportSources) -> _ParquetCells | None:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        source = _opened(file)
        schema = parquet.ParquetFile(source).schema_arrow
        columns = find_columns(schema.names, stated)
        if columns is None:
            return None
        places = [place for _, place in (*columns.keys, *columns.texts)]
        places += [place for place in columns.beside if place is not None]
        wanted = {schema.names[place] for place in places}
        table = parquet.ParquetFile(source).read(
            list(dict.fromkeys(n for n in schema.names if n in wanted))
        )
    except pa.ArrowException as error:
        raise ValueError(type(error).__name__) from None
    read = iter(table.columns)  # several may have one name
    cells: list[Sequence[object]] = [next(read) if n in wanted else () for n in schema.names]
    return _ParquetCells(columns, cells, stated.encoding)
