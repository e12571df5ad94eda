"""The reports of a plain tree of DICOM files: loose texts, tables, HL7 messages, FHIR resources.

A file is one report, or holds several: then each is called ``file#number`` (a table's row, a
message, a resource). Which files are looked into is decided by their suffix, what they are by their
content. A text that is called as readmes, licences and indexes are called is no report.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from lapvqa.ingest.archives.report_index import Content, Entries, Entry, ReportIndex
from lapvqa.ingest.archives.report_table import (
    ReportTable,
    is_table,
    is_table_text,
    open_table,
    why_not,
)
from lapvqa.ingest.archives.structured_report import read_structured_report
from lapvqa.machine import ReportSources
from lapvqa.recorder import counted

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


_NOTHING = Content([], "")


class TreeReports:
    """The reports among ``paths``, relative to ``folder``; files are read when they are asked for.

    Raises SourceError if ``stated`` names a table or a column that is not there.
    """

    def __init__(
        self,
        folder: Path,
        paths: Sequence[str],
        stated: ReportSources,
        index: ReportIndex | None = None,
    ) -> None:
        self._folder, self._stated = folder, stated
        self._paths, self._index = paths, index
        self._tables: dict[str, ReportTable] = {}
        """Those that are open."""
        self._read_tables: list[str] = []
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
    def entries(self) -> Entries:
        """All reports that name their study themselves."""
        found = [*self._table_entries()]
        for path in self._paths:
            lower = path.lower()
            if lower.endswith(_MESSAGE_SUFFIXES):
                found.append(self._known(path, lambda path: self._messages_of(path, "hl7")).entries)
            elif lower.endswith(_RESOURCE_SUFFIXES):
                found.append(self._known(path, self._resources_of).entries)
        return Entries(found)

    def look_into(self, texts: Sequence[str]) -> Entries:
        """Return the reports of the texts that are HL7 or tables; from now on they are entries."""
        found = []
        others = set()
        for path in texts:
            content = self._known(path, self._looked_into)
            if content.source:
                others.add(path)
            if content.source == "table":
                self._take_table(path, content)
            found.append(content.entries)
        self.texts = [path for path in self.texts if path not in others]
        self.entries = Entries([*self.entries.parts, *found])
        return Entries(found)

    def remember(self) -> None:
        """Keep what was found in files with several reports, where it is kept."""
        if self._index is not None:
            self._index.save()

    def _known(self, path: str, read: Callable[[str], Content]) -> Content:
        """Return what a file holds, as it is known or as ``read`` finds."""
        if self._index is None:
            return read(path)
        known = self._index.recall(path)
        return self._index.add(path, read(path)) if known is None else known

    def _looked_into(self, path: str) -> Content:
        beginning = self._beginning(path)
        if beginning is None:
            return self._messages_of(path, "hl7")
        if is_hl7(beginning[:256]):
            return self._messages_of(path, "hl7")
        return self._rows_of(path) if _begins_as_table(beginning) else _NOTHING

    def _resources_of(self, path: str) -> Content:
        beginning = self._beginning(path)
        if beginning is None or is_fhir(beginning):
            return self._messages_of(path, "fhir")
        return _NOTHING

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
            return self._table(entry.file).text_at(entry.place)
        found = self._found(entry.file, entry.source)[entry.place[0]]
        if found.text is None:
            refusal = found.refusal or Refusal(Reason.NOT_A_REPORT, "no text")
            raise refusal.error()
        return found.text

    def _read_file(self, path: str) -> ReportText:
        if path.lower().endswith((TEXT_SUFFIX, *_RICH_SUFFIXES)):
            data = read_loose(place(self._folder, path))
            return decode_report(data, stated=self._stated.encoding)
        return read_structured_report(read_loose(place(self._folder, path), _MAX_FILE))

    def _table_entries(self) -> Iterator[Collection[Entry]]:
        stated = self._stated.table
        if stated is not None and stated not in self._paths:
            raise SourceError(
                "local.yaml names a table of reports that is not in the source folder",
                hint="correct reports.table: a path relative to the source folder; link the table "
                "there if it lies elsewhere",
            )
        for path in [stated] if stated is not None else filter(is_table, self._paths):
            content = self._known(path, self._rows_of)
            self._take_table(path, content)
            yield content.entries
        if not self._read_tables and (self._stated.key_columns() or self._stated.text):
            raise SourceError(
                "local.yaml names columns of the reports that no table of the archive has",
                hint="correct `reports` in local.yaml by the table's first row",
            )

    def _take_table(self, path: str, content: Content) -> None:
        if content.not_read:
            self.not_read[path] = content.not_read
        elif next((entry.place for entry in content.entries), "none"):  # else it is damaged
            self._read_tables.append(path)

    def _rows_of(self, path: str) -> Content:
        file = place(self._folder, path)
        try:
            table = open_table(file, self._stated)
            if table is None and self._stated.table is None:
                return Content([], "table", why_not(file))
        except DicomError as error:
            refused = Entry(path, path, (), "table", Names(), (0, 0), Refusal.of(error))
            return Content([refused], "table")
        if table is None:
            raise SourceError(
                "the table of reports that local.yaml names has no column that names a "
                "study, or none of text",
                hint="name both in local.yaml: reports.accession (or study_uid, "
                "instance_uid, path) and reports.text",
            )
        self._tables[path] = table
        entries = [
            Entry(
                f"{path}#{row.number}", path, row.spans, "table", row.names, row.stamp, row.refusal
            )
            for row in table.rows
        ]
        return Content(entries, "table")

    def _table(self, path: str) -> ReportTable:
        """Return a table to read texts from; raises DicomError if it is gone since."""
        if path not in self._tables:
            table = open_table(place(self._folder, path), self._stated, whole=False)
            if table is None:
                raise DicomError(Reason.CHANGED, "the table is no longer as it was listed")
            self._tables[path] = table
        return self._tables[path]

    @property
    def notes(self) -> list[str]:
        """What is to be said of tables: how many are not read and why; it names no file."""
        why = Counter(self.not_read.values())
        why["spreadsheets: save them as CSV in UTF-8"] += sum(
            path.lower().endswith(_SPREADSHEETS) for path in self._paths
        )
        listed = "; ".join(f"{number} {reason}" for reason, number in why.items() if number)
        hint = "name the columns in local.yaml: `reports`, if they hold reports"
        tables = counted(why.total(), "table")
        return [f"not read as reports: {tables} ({listed}); {hint}"] * bool(listed)

    @property
    def columns(self) -> Mapping[str, str]:
        """Of each table that is read which columns are taken, by their names."""
        return {path: str(self._table(path).columns) for path in self._read_tables}

    def _messages_of(self, path: str, source: str) -> Content:
        try:
            found = self._found(path, source)
        except DicomError as error:
            refusal = Refusal.of(error)
            return Content([Entry(path, path, (), source, Names(), (0, 0), refusal)], source)
        entries = [
            Entry(
                path if len(found) == 1 else f"{path}#{number}",
                path, (number - 1,), source, report.names, report.stamp, report.refusal,
            )
            for number, report in enumerate(found, start=1)
        ]  # fmt: skip
        return Content(entries, source)

    def _found(self, path: str, source: str) -> Sequence[Found]:
        """Return the reports of a file with messages; the last file is kept."""
        if self._last[0] != path:
            readers: Mapping[str, Callable[[bytes], Sequence[Found]]] = {
                "hl7": read_messages,
                "fhir": read_resources,
            }
            self._last = path, readers[source](read_loose(place(self._folder, path), _MAX_FILE))
        return self._last[1]

    def _beginning(self, path: str) -> bytes | None:
        """Return the first bytes of a file; None if it cannot be opened, for reading to say why."""
        try:
            return members.read_head(place(self._folder, path), _PEEK)
        except DicomError as error:
            return None if error.reason == Reason.UNREADABLE else b""


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
