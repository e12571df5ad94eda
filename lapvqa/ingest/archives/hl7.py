"""HL7 v2 messages with radiology reports: ORU^R01 and MDM^T02, one to a file or many.

A report is an order group (OBR and its OBX): the text of its OBX-5 in order, with repetitions as
lines and escapes resolved (2.7), under headings by OBX-3. Files may be framed (MLLP), batches
(FHS, BHS), with segments ended by CR as the standard asks, or by line ends. A line that begins no
segment goes on with the one before. PID, and whoever ordered or signed, are never read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lapvqa.dicom.reasons import Reason, as_reason
from lapvqa.errors import DicomError
from lapvqa.ingest.archives.encodings import UTF8, decode
from lapvqa.ingest.archives.headings import Part, compose, heading_of
from lapvqa.ingest.archives.markup import plain, require_text
from lapvqa.ingest.archives.messages import Found, Names, stamp_of_bytes
from lapvqa.ingest.archives.protocol import Refusal, ReportText, Withdrawn

_MARK = re.compile(rb"\xef\xbb\xbf(?=MSH|FHS|BHS)")
_BEGINS = re.compile(rb"^[\x0b\s\xef\xbb\xbf]*(?:MSH|FHS|BHS)[|^~&#!$%]")
_MESSAGE = re.compile(rb"(?:(?<=[\r\n\x0b])|^)MSH(?=[^\w\s])")
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
_KINDS = frozenset({"ORU", "MDM"})
# Table 0211 to what Python calls it; others are found by their bytes.
_CHARACTER_SETS = {
    "ASCII": UTF8, "8859/1": "cp1252", "8859/2": "iso8859_2", "8859/5": "iso8859_5",
    "8859/7": "iso8859_7", "8859/9": "cp1254", "8859/15": "iso8859_15",
    "ISO IR6": UTF8, "ISO IR14": "cp932", "ISO IR87": "iso2022_jp_2", "ISO IR159": "iso2022_jp_2",
    "GB 18030-2000": "gb18030", "BIG-5": "cp950", "KS X 1001": "cp949", "UNICODE UTF-8": UTF8,
    "UNICODE": UTF8,
}  # fmt: skip
_PENDING = frozenset("OSIX")
_PRELIMINARY, _WITHDRAWN = frozenset("PRSIA"), frozenset("XDW")
_STUDY_UID_CODES = ("113014", "110180")  # DCM: DICOM Study Instance UID, and Study Instance UID
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_ESCAPE = re.compile(r"\\([^\\\r\n]{1,256})\\")


@dataclass(frozen=True)
class _Message:
    """The segments of one message, and the characters that separate their parts."""

    segments: Sequence[Sequence[str]]
    field: str
    component: str
    repetition: str
    escape: str
    subcomponent: str
    encoding: str
    data: bytes


@dataclass(frozen=True)
class _Order:
    """An order group: its OBR, and the OBX below it."""

    request: Sequence[str]
    results: Sequence[Sequence[str]]
    others: Sequence[Sequence[str]] = ()
    """Requests without results of their own: one report stands for the whole group."""


def is_hl7(beginning: bytes) -> bool:
    """Tell whether a file that begins so holds HL7 v2 messages."""
    if _is_wide(beginning):
        beginning = beginning.replace(b"\0", b"").lstrip(b"\xff\xfe")
    return _BEGINS.match(_MARK.sub(b"", beginning)) is not None


def _is_wide(beginning: bytes) -> bool:
    """Tell whether a file that begins so is in UTF-16, of which HL7 is every other byte zero."""
    return beginning.startswith((b"\xff\xfe", b"\xfe\xff")) or beginning[:8].count(0) == 4


def read_messages(data: bytes) -> list[Found]:
    """Return each report of a file's messages in order; a message without one is refused.

    Raises DicomError NOT_A_REPORT if it has no message, REPORT_ENCODING or BAD_REPORT.
    """
    if _is_wide(data):
        data = decode(data).text.encode()
    data = _MARK.sub(b"", data)
    starts = [match.start() for match in _MESSAGE.finditer(data)]
    if not starts:
        raise DicomError(Reason.NOT_A_REPORT, "expected HL7 messages, found no MSH segment")
    ends = [*starts[1:], len(data)]
    return [
        found
        for start, end in zip(starts, ends, strict=True)
        for found in _reports_of(data[start:end])
    ]


def _reports_of(data: bytes) -> Iterator[Found]:
    stamp = stamp_of_bytes(data)
    try:
        with as_reason(Reason.BAD_REPORT, "an HL7 message"):
            message = _parse(data)
            kind = _at(message.segments[0], 9).split(message.component)[0]
            orders = _orders(message) if kind in _KINDS else []
            names_of = [_names(message, order) for order in orders]
    except DicomError as error:
        yield Found(Names(), None, stamp, Refusal.of(error))
        return
    if not orders:
        detail = "expected ORU or MDM with OBX, found another message"
        yield Found(Names(), None, stamp, Refusal(Reason.NOT_A_REPORT, detail))
    for number, (order, names) in enumerate(zip(orders, names_of, strict=True)):
        mark = (stamp[0], stamp[1] ^ number)
        try:
            with as_reason(Reason.BAD_REPORT, "an HL7 message"):
                text = _text(message, order)
        except DicomError as error:
            yield Found(names, None, mark, Refusal.of(error))
            continue
        yield Found(names, text, mark)


def _parse(data: bytes) -> _Message:
    data = data.split(b"\x1c", 1)[0]
    encoding = _encoding(data)
    text = decode(data, stated=encoding).text
    field = text[3]
    signs = text[4 : text.find(field, 4)]
    component, repetition, escape, subcomponent = list(signs + "^~\\&"[len(signs) :])[:4]
    lines: list[str] = []
    for line in re.split(r"\r\n|\r|\n", text):
        if _SEGMENT.match(line) and line[3:4] == field:
            lines.append(line)
        elif lines:
            lines[-1] += "\n" + line
    segments = [line.rstrip("\n").split(field) for line in lines if line[:3] not in _TRAILERS]
    # The separator itself is MSH-1, so that MSH-9 is found like all other fields.
    segments[0].insert(1, field)
    return _Message(segments, field, component, repetition, escape, subcomponent, encoding, data)


_TRAILERS = frozenset({"FHS", "BHS", "BTS", "FTS"})


def _encoding(data: bytes) -> str:
    """Return UTF-8 if all bytes fit (many senders say 8859/1), else the encoding of MSH-18."""
    head = re.split(rb"[\r\n]", data, maxsplit=1)[0].decode("latin-1").split(chr(data[3]))
    stated = _CHARACTER_SETS.get(_at(head, 17).split(head[1][1:2] or "~")[0].strip().upper())
    for encoding in dict.fromkeys((UTF8, stated)):
        if encoding and b"\x1b$" not in data:
            try:
                data.decode(encoding)
            except UnicodeDecodeError:
                continue
            return encoding
    return decode(data).encoding


def _orders(message: _Message) -> list[_Order]:
    groups: list[tuple[Sequence[str], list[Sequence[str]]]] = []
    for segment in message.segments:
        if segment[0] == "OBR" or (segment[0] == "OBX" and not groups):
            groups.append((segment if segment[0] == "OBR" else (), []))
        if segment[0] == "OBX":
            groups[-1][1].append(segment)
    others = [request for request, results in groups if not results and _is_reported(request)]
    orders = [_Order(request, results) for request, results in groups if results]
    # Beside several reports nothing tells to which of them a request without results belongs.
    return [replace(order, others=others) for order in orders] if len(orders) == 1 else orders


def _is_reported(request: Sequence[str]) -> bool:
    """Tell whether OBR-25 lets a request have results: it is not still to be done, or given up."""
    return _at(request, 25)[:1] not in _PENDING


def _names(message: _Message, order: _Order) -> Names:
    """Return the names of the study: ZDS-1, IPC-3 and OBX for its UID, order numbers else."""
    uids: list[str] = []
    numbers = [
        _first(message, _at(request, place))
        for request in (order.request, *order.others)
        for place in (18, 3, 2, 19, 20)
    ]
    for segment in message.segments:
        if segment[0] == "ZDS":
            uids.append(_first(message, _at(segment, 1)))
        elif segment[0] == "IPC":
            numbers.insert(0, _first(message, _at(segment, 1)))
            uids.append(_first(message, _at(segment, 3)))
        elif segment[0] == "ORC" and sum(s[0] == "OBR" for s in message.segments) < 2:
            numbers += [_first(message, _at(segment, place)) for place in (3, 2)]
    for result in order.results:
        if _names_study(message, result):
            uids.append(_first(message, _at(result, 5)))
    return Names(
        study_uids=tuple(dict.fromkeys(filter(_UID.fullmatch, uids))),
        accessions=tuple(dict.fromkeys(filter(None, numbers))),
    )


def _names_study(message: _Message, result: Sequence[str]) -> bool:
    code, _, name = _at(result, 3).partition(message.component)
    return code in _STUDY_UID_CODES or "study instance uid" in name.lower()


def _text(message: _Message, order: _Order) -> ReportText:
    status, written = _status(order), _written(message, order)
    if status == "withdrawn":
        raise Withdrawn("the message says that there is no such result", written)
    parts: list[Part] = []
    forms = []
    for result in order.results:
        if _at(result, 11)[:1] in _WITHDRAWN or _names_study(message, result):
            continue
        values = _at(result, 5).split(message.repetition)
        texts = []
        for value in values:
            text, form = _value(message, result, value)
            texts.append(text)
            forms.append(form)
        parts.append((_heading(message, result), "\n".join(texts)))
    text = compose(parts)
    if not any(char.isalnum() for char in text):
        raise DicomError(Reason.NOT_A_REPORT, "expected text in OBX-5, found none")
    digest = hashlib.sha256(text.encode()).hexdigest()
    form = next((form for form in forms if form in ("rtf", "html")), "hl7")
    return ReportText(text, digest, message.encoding, form, status, written)


def _value(message: _Message, result: Sequence[str], value: str) -> tuple[str, str]:
    """Return the text of one value of OBX-5 by its type, OBX-2, and the format that it was in."""
    kind = _at(result, 2)
    components = value.split(message.component)
    if kind in ("TX", "FT", "ST", ""):
        return plain(_unescape(message, value))
    if kind in ("CWE", "CE", "CNE", "CF"):
        parts = [*components, ""]
        return _unescape(message, parts[1] or parts[0]), "text"
    if kind in ("NM", "SN"):
        name = (_at(result, 3).split(message.component) + [""])[1]
        unit = _first(message, _at(result, 6))
        number = "".join(components) if kind == "SN" else value
        return _unescape(message, f"{name}: {number} {unit}".strip(": ")), "text"
    if kind == "ED":
        return _encapsulated(message, components)
    return "", "text"


def _encapsulated(message: _Message, components: Sequence[str]) -> tuple[str, str]:
    """Return the text of an ED value: source, type, subtype, encoding, data."""
    _, _, _, encoding, data = ([*components] + [""] * 5)[:5]
    if encoding.lower() != "base64":
        return plain(_unescape(message, data))
    try:
        content = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise DicomError(Reason.BAD_REPORT, "expected base64 in OBX-5, found other text") from None
    require_text(content)
    return plain(decode(content).text)


def _heading(message: _Message, result: Sequence[str]) -> str:
    """Return the heading by OBX-3: code, its suffix as in 71020&IMP, and name."""
    code, name, *_ = [*_at(result, 3).split(message.component), "", ""]
    base, _, suffix = code.partition(message.subcomponent)
    return heading_of(name.split(message.subcomponent)[0], suffix, base)


def _status(order: _Order) -> str:
    """Return the status by OBR-25, else by OBX-11."""
    stated = _at(order.request, 25)[:1]
    states = {stated} if stated else {_at(result, 11)[:1] for result in order.results} - {""}
    if states and states <= _WITHDRAWN:
        return "withdrawn"
    if states & _PRELIMINARY:
        return "preliminary"
    return "corrected" if "C" in states else "final" if states else ""


def _written(message: _Message, order: _Order) -> str:
    times = [_at(order.request, 22), _at(message.segments[0], 7)]
    digits = (re.match(r"\d{8}(?:\d{6}|\d{4})?", time) for time in times)
    return next((match[0].ljust(14, "0") for match in digits if match), "")


def _unescape(message: _Message, text: str) -> str:
    if message.escape not in text:
        return text
    pattern = _ESCAPE
    if message.escape != "\\":
        sign = re.escape(message.escape)
        pattern = re.compile(rf"{sign}([^{sign}\r\n]{{1,256}}){sign}")
    return pattern.sub(lambda match: _meaning(message, match), text)


def _meaning(message: _Message, match: re.Match[str]) -> str:
    code = match[1]
    signs = {
        "F": message.field, "S": message.component, "T": message.subcomponent,
        "R": message.repetition, "E": message.escape, "P": "#", "H": "", "N": "",
    }  # fmt: skip
    if code in signs:
        return signs[code]
    formatting = re.fullmatch(r"\.(br|sp|ce|sk|in|ti|fi|nf)\s*([+-]?\d+)?", code)
    if formatting:
        count = min(int(formatting[2] or 1), 40)
        written = {"br": "\n" * max(count, 1), "sp": "\n" * max(count, 1), "ce": "\n"}
        return " " * max(count, 0) if formatting[1] == "sk" else written.get(formatting[1], "")
    if re.fullmatch(r"X(?:[0-9A-Fa-f]{2})+", code):
        content = bytes.fromhex(code[1:]).decode(message.encoding, "replace")
        return content.replace("\r\n", "\n").replace("\r", "\n")
    if re.fullmatch(r"[CM][0-9A-Fa-f]{4,6}|Z\w*", code):
        return ""
    return match[0]


def _first(message: _Message, field: str) -> str:
    """Return the first component of a field's first value."""
    value = field.split(message.repetition)[0].split(message.component)[0]
    return _unescape(message, value.split(message.subcomponent)[0]).strip()


def _at(segment: Sequence[str], place: int) -> str:
    return segment[place] if place < len(segment) else ""
