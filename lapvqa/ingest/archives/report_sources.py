"""The reports of a plain tree of DICOM files: loose texts, tables, HL7 messages, FHIR resources.

A file is one report, or holds several: then each is called ``file#number`` (a table's row, a
message, a resource). Which files are looked into is decided by their suffix, what they are by their
content. A text that is called as readmes, licences and indexes are called is no report.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError, SourceError
from lapvqa.ingest.archives import members
from lapvqa.ingest.archives.encodings import decode
from lapvqa.ingest.archives.fhir import is_fhir, read_resources
from lapvqa.ingest.archives.hl7 import is_hl7, read_messages
from lapvqa.ingest.archives.messages import Found, Names
from lapvqa.ingest.archives.names import place
from lapvqa.ingest.archives.protocol import Refusal, ReportText
from lapvqa.ingest.archives.report_files import decode_report, read_loose, stamp_of
from lapvqa.ingest.archives.report_table import (
    ReportTable,
    is_table,
    is_table_text,
    open_table,
    why_not,
)
from lapvqa.ingest.archives.structured_report import read_structured_report
from lapvqa.machine import ReportSources

TEXT_SUFFIX = ".txt"
_RICH_SUFFIXES = (".rtf", ".html", ".htm")  # reports if something says whose; else other files
_MESSAGE_SUFFIXES = (".hl7", ".hl7.gz")
_RESOURCE_SUFFIXES = (".json", ".ndjson", ".json.gz", ".ndjson.gz")
_SPREADSHEETS = (".xlsx", ".xls", ".ods")
_DOCUMENT_SUFFIXES = (".pdf", ".doc", ".docx", ".odt", *_SPREADSHEETS)
_PEEK = 1 << 16
_MAX_FILE = 1 << 30
# Words of file names (in small letters) that no report is called by.
_OTHER_TEXTS = frozenset(
    {
        "readme", "read", "leeme", "léeme", "leame", "liesmich", "lies", "lisez", "lisezmoi",
        "leiame", "leggimi", "lesmij", "license", "licenses", "licence", "licences", "lizenz",
        "licencia", "licença", "licenca", "licenza", "eula", "copying", "copyright", "notice",
        "notices", "terms", "disclaimer", "agreement", "version", "versions", "release",
        "changelog", "changes", "changelist", "history_of_changes", "whatsnew", "index",
        "contents", "toc", "manifest", "inventory", "filelist", "files", "checksum", "checksums",
        "md5", "md5sum", "md5sums", "sha1", "sha1sums", "sha256", "sha256sums", "sha512sums",
        "help", "hilfe", "ayuda", "aide", "aiuto", "ajuda", "manual", "handbuch", "faq",
        "install", "installation", "setup", "autorun", "viewer", "dicomdir", "requirements",
        "robots", "log", "logs", "error", "errors", "debug", "credits", "authors", "contributors",
        "about", "instructions", "anleitung", "instrucciones", "instruções", "说明", "使用说明",
        "自述", "读我", "許可", "许可", "版本", "お読みください", "はじめに", "読んでください",
        "읽어보기",
    }
)  # fmt: skip

_LEAFLET = re.compile(
    r"(?:(?:patient|paciente|patienten|general|image|cd)s?[\W_]*)?"
    r"(?:infos?|informatione?n?s?|informaci[oó]n|informazioni|informa[cç][oõ]es|leaflet|flyer"
    r"|merkblatt|hinweise?|folleto|d[ée]pliant|faltblatt|bijsluiter)[\W_\d]*"
)
"""Whole names (in small letters) of leaflets; as a part of a name, info says nothing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A report within a file that holds several, or that names its study itself."""

    path: str
    file: str
    place: int
    """Which of the file's reports it is."""
    source: str
    """table | hl7 | fhir"""
    names: Names
    stamp: tuple[int, int]
    refusal: Refusal | None


class TreeReports:
    """The reports among ``paths``, relative to ``folder``; files are read when they are asked for.

    Raises SourceError if ``stated`` names a table or a column that is not there.
    """

    def __init__(self, folder: Path, paths: Sequence[str], stated: ReportSources) -> None:
        self._folder, self._stated = folder, stated
        self._paths = paths
        self._tables: dict[str, ReportTable] = {}
        self.not_read: dict[str, str] = {}
        """Tables that are not read as reports, and why."""
        self._last: tuple[str, Sequence[Found]] = ("", ())
        loose = [path for path in paths if _may_be_report(path, (TEXT_SUFFIX, *_RICH_SUFFIXES))]
        self.texts = [path for path in loose if path.lower().endswith(TEXT_SUFFIX)]
        """Loose texts; those that turn out to hold messages leave this list."""
        self.rich_texts = [path for path in loose if not path.lower().endswith(TEXT_SUFFIX)]
        self.documents = [path for path in paths if _may_be_report(path, _DOCUMENT_SUFFIXES)]
        """Documents that are not read: what is said of them is that a text was wanted."""

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """All reports that name their study themselves, by path."""
        found = [*self._table_entries()]
        for path in self._paths:
            lower = path.lower()
            if lower.endswith(_MESSAGE_SUFFIXES):
                found += self._entries_of(path, "hl7")
            elif lower.endswith(_RESOURCE_SUFFIXES) and is_fhir(self._beginning(path)):
                found += self._entries_of(path, "fhir")
        return {entry.path: entry for entry in found}

    def look_into(self, texts: Sequence[str]) -> list[Entry]:
        """Return the reports of the texts that are HL7 or tables; from now on they are entries."""
        found: list[Entry] = []
        for path in texts:
            beginning = self._beginning(path)
            if is_hl7(beginning[:256]):
                found += self._entries_of(path, "hl7")
            elif _begins_as_table(beginning):
                found += self._rows_of(path)
            else:
                continue
            self.texts.remove(path)
        self.entries.update({entry.path: entry for entry in found})
        return found

    def stamp(self, path: str) -> tuple[int, int]:
        """Return two numbers that change when the report does; raises OSError."""
        entry = self.entries.get(path)
        return stamp_of(place(self._folder, path)) if entry is None else entry.stamp

    def read(self, path: str) -> ReportText:
        """Return a report's text; ``path`` may be of a file with DICOM SR. Raises DicomError."""
        entry = self.entries.get(path)
        if entry is None:
            return self._read_file(path)
        if entry.source == "table":
            table = self._tables[entry.file]
            return table.text(table.rows[entry.place])
        found = self._found(entry.file, entry.source)[entry.place]
        if found.text is None:
            refusal = found.refusal or Refusal(Reason.NOT_A_REPORT, "no text")
            raise refusal.error()
        return found.text

    def _read_file(self, path: str) -> ReportText:
        if path.lower().endswith((TEXT_SUFFIX, *_RICH_SUFFIXES)):
            data = read_loose(place(self._folder, path))
            return decode_report(data, stated=self._stated.encoding)
        return read_structured_report(read_loose(place(self._folder, path), _MAX_FILE))

    def _table_entries(self) -> Iterator[Entry]:
        stated = self._stated.table
        if stated is not None and stated not in self._paths:
            raise SourceError(
                "local.yaml names a table of reports that is not in the source folder",
                hint="correct reports.table: a path relative to the source folder; link the table "
                "there if it lies elsewhere",
            )
        for path in [stated] if stated is not None else filter(is_table, self._paths):
            yield from self._rows_of(path)
        if not self._tables and (self._stated.key_columns() or self._stated.text):
            raise SourceError(
                "local.yaml names columns of the reports that no table of the archive has",
                hint="correct `reports` in local.yaml by the table's first row",
            )

    def _rows_of(self, path: str) -> Iterator[Entry]:
        file = place(self._folder, path)
        try:
            table = open_table(file, self._stated)
            if table is None:
                self.not_read[path] = why_not(file)
        except DicomError as error:
            yield Entry(path, path, 0, "table", Names(), (0, 0), Refusal.of(error))
            return
        if table is None:
            if self._stated.table is not None:
                raise SourceError(
                    "the table of reports that local.yaml names has no column that names a "
                    "study, or none of text",
                    hint="name both in local.yaml: reports.accession (or study_uid, "
                    "instance_uid, path) and reports.text",
                )
            return
        self._tables[path] = table
        for index, row in enumerate(table.rows):
            name = f"{path}#{row.number}"
            yield Entry(name, path, index, "table", row.names, row.stamp, row.refusal)

    @property
    def notes(self) -> list[str]:
        """What is to be said of tables: how many are not read and why; it names no file."""
        why = Counter(self.not_read.values())
        why["spreadsheets: save them as CSV in UTF-8"] += sum(
            path.lower().endswith(_SPREADSHEETS) for path in self._paths
        )
        listed = "; ".join(f"{number} {reason}" for reason, number in why.items() if number)
        hint = "name the columns in local.yaml: `reports`, if they hold reports"
        return [f"{why.total()} tables were not read as reports ({listed}); {hint}"] * bool(listed)

    @property
    def columns(self) -> Mapping[str, str]:
        """Of each table that is read which columns are taken, by their names."""
        return {path: str(table.columns) for path, table in self._tables.items()}

    def _entries_of(self, path: str, source: str) -> list[Entry]:
        try:
            found = self._found(path, source)
        except DicomError as error:
            refusal = Refusal.of(error)
            return [Entry(path, path, 0, source, Names(), (0, 0), refusal)]
        return [
            Entry(
                path if len(found) == 1 else f"{path}#{number}",
                path, number - 1, source, report.names, report.stamp, report.refusal,
            )
            for number, report in enumerate(found, start=1)
        ]  # fmt: skip

    def _found(self, path: str, source: str) -> Sequence[Found]:
        """Return the reports of a file with messages; the last file is kept."""
        if self._last[0] != path:
            readers: Mapping[str, Callable[[bytes], Sequence[Found]]] = {
                "hl7": read_messages,
                "fhir": read_resources,
            }
            self._last = path, readers[source](read_loose(place(self._folder, path), _MAX_FILE))
        return self._last[1]

    def _beginning(self, path: str) -> bytes:
        try:
            return members.read_head(place(self._folder, path), _PEEK)
        except DicomError:
            return b""


def _begins_as_table(beginning: bytes) -> bool:
    try:
        return is_table_text(decode(beginning).text)
    except DicomError:
        return False


def _may_be_report(path: str, suffixes: Sequence[str]) -> bool:
    """Tell whether a loose text may be a report, by its suffix and name."""
    stem, suffix = posixpath.splitext(posixpath.basename(path).lower())
    if suffix not in suffixes:
        return False
    if _LEAFLET.fullmatch(stem):
        return False
    return not _OTHER_TEXTS.intersection([stem, *re.split(r"[\W_\d]+", stem)])
