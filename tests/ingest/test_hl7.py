"""HL7 v2: messages as the standard (2.7 and 7.4) and radiology systems write them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapvqa.errors import DicomError
from lapvqa.ingest.archives.hl7 import is_hl7, read_messages
from lapvqa.ingest.archives.report_files import decode_report

HEAD = "MSH|^~\\&|RIS|HOSP|||20240102101500||ORU^R01|1|P|2.5.1||||||{charset}"
PID = "PID|1||12345^^^HOSP||DOE^JANE^Q||19400101|F"


def message(*segments: str, charset: str = "UNICODE UTF-8", end: str = "\r") -> str:
    return end.join([HEAD.format(charset=charset), PID, *segments]) + end


OBR = "OBR|1|P77^PLACER|A100^RIS|71020^XR CHEST||||||||||||||||||20240102111500|||F"


def only(text: str | bytes) -> str:
    (found,) = read_messages(text.encode() if isinstance(text, str) else text)
    assert found.text is not None
    return found.text.text


def test_lines_in_many_obx_with_escapes_and_repetitions() -> None:
    text = message(
        OBR,
        "OBX|1|TX|71020^XR CHEST||FINDINGS: Heart \\T\\ lungs normal.||||||F",
        "OBX|2|FT|71020^XR CHEST||No effusion\\.br\\Line two\\.sp2\\3\\F\\4 \\S\\ \\R\\ \\E\\ "
        "\\X0D0A\\end~again||||||F",
        "OBX|3|ST|71020^XR CHEST||\\H\\IMPRESSION:\\N\\ clear, and\\or||||||F",
        "OBX|4|TX|71020^XR CHEST||deleted||||||D",
    )
    (found,) = read_messages(text.encode())
    assert found.text is not None
    assert found.text.text == (
        "FINDINGS: Heart & lungs normal.\nNo effusion\nLine two\n\n3|4 ^ ~ \\ \nend\nagain\n"
        "IMPRESSION: clear, and\\or"
    )
    assert found.names.accessions == ("A100", "P77")
    assert (found.text.status, found.text.written) == ("final", "20240102111500")
    assert "DOE" not in found.text.text
    assert "12345" not in repr(found)


def test_headings_come_from_obx_3() -> None:
    text = message(
        OBR,
        "OBX|1|TX|36643-5&GDT^XR CHEST||Heart normal.",
        "OBX|2|TX|36643-5&GDT^XR CHEST||Lungs clear.",
        "OBX|3|CWE|36643-5&IMP^XR CHEST||R91^Normal chest^ICD",
        "OBX|4|TX|19005-8^Impression^LN||No change.",
    )
    assert only(text) == (
        "\n FINDINGS: Heart normal. Lungs clear.\n IMPRESSION: Normal chest No change."
    )


@pytest.mark.parametrize(
    ("charset", "encoding", "body"),
    [
        ("8859/1", "cp1252", "Herz nicht vergrößert"),
        ("8859/1", "utf-8", "Herz nicht vergrößert"),  # what is said is wrong
        ("GB 18030-2000", "gb18030", "双肺纹理清晰，未见明显实变影。"),
        ("ISO IR87", "iso2022_jp", "所見：胸水なし"),
        ("", "shift_jis", "両肺野に明らかな浸潤影は認めません。表示ソ|"),
        ("", "cp1252", "Größe"),
    ],
)
def test_the_character_set(charset: str, encoding: str, body: str) -> None:
    written = body.replace("|", "\\F\\")
    text = message(OBR, f"OBX|1|TX|x||{written}", charset=charset)
    assert only(text.encode(encoding)) == body


def test_base64_texts_and_documents() -> None:
    rtf = base64.b64encode(b"{\\rtf1\\ansi Gr\\'f6\\'dfe\\par normal}").decode()
    assert only(message(OBR, f"OBX|1|ED|x||RIS^TEXT^RTF^Base64^{rtf}")) == "Größe\nnormal"
    pdf = base64.b64encode(b"%PDF-1.4").decode()
    (found,) = read_messages(message(OBR, f"OBX|1|ED|x||RIS^AP^PDF^Base64^{pdf}").encode())
    assert found.text is None
    assert found.refusal is not None
    assert found.refusal.reason == "report_format"


def test_a_batch_framed_with_several_messages_and_orders() -> None:
    one = message(OBR, "OBX|1|TX|x||first")
    two = message(
        "ORC|RE|P2|A102", "OBR|1|P2|A102|||||||||||||||||||||", "OBX|1|TX|x||second", end="\n"
    )
    both = message(OBR, "OBX|1|TX|x||third", "OBR|2||A103", "OBX|1|TX|x||fourth\nand on")
    batch = f"FHS|^~\\&\rBHS|^~\\&\r\x0b{one}\x1c\r\x0b{two}\x1c\r{both}BTS|3\rFTS|1\r"
    assert is_hl7(batch.encode())
    found = read_messages(batch.encode())
    assert [f.text.text if f.text else "" for f in found] == [
        "first", "second", "third", "fourth\nand on",
    ]  # fmt: skip
    assert [f.names.accessions[0] for f in found] == ["A100", "A102", "A100", "A103"]
    assert len({f.stamp for f in found}) == 4
    with pytest.raises(DicomError, match="expected one HL7 report, found 4"):
        decode_report(batch.encode())


def test_one_report_of_a_group_of_orders_names_them_all() -> None:
    """Two examinations are reported in one text: either order's number may be the study's."""
    second, result = "OBR|2||A103", "OBX|1|TX|x||both"
    for text in (message(OBR, second, result), message(OBR, result, second)):
        (found,) = read_messages(text.encode())
        assert {"A100", "A103"} <= {*found.names.accessions}
        assert found.text is not None
        assert found.text.text == "both"
    still_to_do = f"{second}||||||||||||||||||||||S"
    (found,) = read_messages(message(OBR, result, still_to_do).encode())
    assert "A103" not in found.names.accessions
    two = read_messages(message(OBR, result, second, result, "OBR|3||A104").encode())
    assert [f.names.accessions[0] for f in two] == ["A100", "A103"]
    assert not any("A104" in f.names.accessions for f in two)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_messages_in_two_bytes_a_character(encoding: str) -> None:
    data = message(OBR, "OBX|1|TX|x||Größe, \u6240\u89c1").encode(encoding)
    assert is_hl7(data[:256])
    assert decode_report(data).text == "Größe, \u6240\u89c1"


@pytest.mark.parametrize(
    ("status", "expected"),
    [("P", "preliminary"), ("C", "corrected"), ("F", "final"), ("R", "preliminary"), ("", "")],
)
def test_status(status: str, expected: str) -> None:
    (found,) = read_messages(message(OBR[:-1] + status, "OBX|1|TX|x||text").encode())
    assert found.text is not None
    assert found.text.status == expected


def test_what_is_no_report_is_refused_by_reason() -> None:
    cases = {
        "not_a_report": [
            HEAD.format(charset="").replace("ORU^R01", "ADT^A01") + "\r" + PID + "\r",
            message(OBR),
            message(OBR, "OBX|1|RP|x||pointer"),
        ],
        "report_withdrawn": [message(OBR[:-1] + "X", "OBX|1|TX|x||text||||||X")],
    }
    for reason, texts in cases.items():
        for text in texts:
            (found,) = read_messages(text.encode())
            assert found.text is None
            assert found.refusal is not None
            assert found.refusal.reason == reason


def test_study_uids_of_zds_and_obx() -> None:
    text = message(
        OBR, "ZDS|1.2.840.1^RIS^Application^DICOM", "OBX|1|HD|113014^DICOM Study^DCM||1.2.840.2",
        "OBX|2|TX|x||text",
    )  # fmt: skip
    (found,) = read_messages(text.encode())
    assert found.names.study_uids == ("1.2.840.1", "1.2.840.2")
    assert found.text is not None
    assert found.text.text == "text"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_any_text_escaped_as_the_standard_asks_is_read_again(text: str) -> None:
    escaped = text.replace("\\", "\\E\\")
    for sign, code in {"|": "F", "^": "S", "&": "T", "~": "R"}.items():
        escaped = escaped.replace(sign, f"\\{code}\\")
    if any(char.isalnum() for char in text) and "<" not in text and "{" not in text:
        assert only(message(OBR, f"OBX|1|TX|x||{escaped}")) == text


@given(st.binary(max_size=200))
def test_any_bytes_give_reports_or_reasons(tail: bytes) -> None:
    for found in read_messages(HEAD.encode() + b"\r" + tail):
        assert (found.text is None) == (found.refusal is not None)
