"""No reader of reports ends by anything but a DicomError, whatever the bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_fhir import report
from test_hl7 import OBR, message
from test_structured_report import whole_report

from lapvqa.errors import DicomError
from lapvqa.ingest.archives.fhir import read_resources
from lapvqa.ingest.archives.hl7 import is_hl7, read_messages
from lapvqa.ingest.archives.report_files import decode_report
from lapvqa.ingest.archives.report_table import open_table
from lapvqa.ingest.archives.structured_report import read_structured_report
from lapvqa.machine import ReportSources

WHOLE = [
    message(OBR, "OBX|1|TX|x||<div>a \\X0D\\<![if x", "OBX|2|ED|x||a^b^c^Base64^eA==").encode(),
    json.dumps(report(conclusion="x", issued="0001-01-01T00:00:00+14:00")).encode(),
    json.dumps(report(conclusion="\ud800")).encode(),
    b'accession,report,status\nA1,"<p>One</p>",final\nA2,"{\\rtf1 x}",x\n',
    b"{\\rtf1\\ansicpg9999{\\fonttbl\\f0\\fcharset128 x;}\\u-10179 ?\\'83A\\par x}",
    b"<html><body><p>x<![if y]>&#x110000;<!-- -->",
    whole_report(),
    b"[" * 100_000,
]
READERS: list[Callable[[bytes], object]] = [
    read_messages, read_resources, decode_report, read_structured_report,
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A report with an end cut off and some bytes changed, or any bytes."""
    data = bytearray(draw(st.sampled_from(WHOLE)))
    del data[draw(st.integers(0, len(data))) :]
    for place, byte in draw(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)))):
        if place < len(data):
            data[place] = byte
    return bytes(data)


@settings(suppress_health_check=list(HealthCheck), max_examples=300)
@given(st.one_of(damaged(), st.sampled_from(WHOLE), st.binary()))
@example(b"")
@example(b"garbage")
@example(b"MSH")
@example(b"MSH|")
@example(b"\xef\xbb\xbfMSH")
@example(b"\xff\xfeM")
def test_a_reader_gives_reports_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    for read in READERS:
        with suppress(DicomError):
            read(data)
    for name in ("t.csv", "t.csv.gz", "t.parquet"):
        file = Path(tmp_path_factory.getbasetemp(), name)
        file.write_bytes(data)
        with suppress(DicomError):
            table = open_table(file, ReportSources())
            for row in table.rows if table else ():
                with suppress(DicomError):
                    assert table is not None
                    table.text(row)


def test_a_byte_order_mark_before_a_message() -> None:
    data = b"\xef\xbb\xbf" + message(OBR, "OBX|1|TX|x||One.").encode()
    assert is_hl7(data)
    assert [f.text.text if f.text else "" for f in read_messages(data + b"\r" + data)] == [
        "One."
    ] * 2
    assert decode_report(data).text == "One."
    for wrong in (b"", b"garbage", b"MSH"):
        with pytest.raises(DicomError) as caught:
            read_messages(wrong)
        assert caught.value.reason == "not_a_report"
