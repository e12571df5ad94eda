"""RTF and HTML to text: by hand, and whatever a writer of either makes of a text."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapvqa.errors import DicomError
from lapvqa.ingest.archives.markup import html_to_text, plain, rtf_to_text
from lapvqa.ingest.archives.report_files import decode_report

RTF = r"""{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fnil\fcharset0 Arial;}{\f1\fcharset134 SimSun;}
{\f2\fcharset128 MS Gothic;}}{\colortbl;\red0\green0\blue0;}{\*\generator Riched20 10.0;}
{\info{\author Doe}{\title Secret}}{\header Page 1\par}\viewkind4\uc1\pard\lang1031\b BEFUND:\b0\par
Herz nicht vergr\'f6\'dfert. \u8805?3 cm \endash  ok.\par
\f1\'d3\'d2\'b7\'ce\f0  x {\f2\'83A} y\tab z\line
{\field{\*\fldinst HYPERLINK "http://x"}{\fldrslt link}} a\~b \{c\} \u-10179?\u-8704?\'e4\par
{\pict\pngblip 89504e47}{\object\bin3 }}}}done}"""
HTML = """<!DOCTYPE html><html><head><title>Doe</title><style>p{color:red}</style></head><body>
<h1>FINDINGS</h1><p>Heart&nbsp;normal &lt;3&nbsp;cm.<br/>No&#32;effusion &amp; so&hellip;</p>
<ul><li>one<li>two</ul><table><tr><td>a</td><td>b</td></tr></table><pre>x
  y</pre><script>alert("no")</script></body></html>"""


def test_rtf_by_hand() -> None:
    assert plain(RTF) == (
        "BEFUND:\nHerz nicht vergrößert. ≥3 cm – ok.\n右肺 x ア y\tz\nlink a\xa0b {c} 😀ä\ndone",
        "rtf",
    )


def test_html_by_hand() -> None:
    assert plain(HTML) == (
        "FINDINGS\nHeart\xa0normal <3\xa0cm.\nNo effusion & so…\none\ntwo\na\tb\nx\ny",
        "html",
    )


def _as_rtf(text: str) -> str:
    def written(char: str) -> str:
        if char == "\n":
            return "\\par\n"
        if char in "\\{}":
            return "\\" + char
        if char.isascii():
            return char
        units = char.encode("utf-16-le")
        pairs = [units[place : place + 2] for place in range(0, len(units), 2)]
        codes = [int.from_bytes(pair, "little", signed=True) for pair in pairs]
        return "".join(f"\\u{code}?" for code in codes)

    return "{\\rtf1\\ansi\\uc1 " + "".join(map(written, text)) + "}"


WORDS = st.text(
    st.characters(exclude_categories=("C", "Z"), include_characters=" \n"), min_size=1
).map(lambda text: "\n".join(" ".join(line.split()) for line in text.split() or ["x"]))


@given(WORDS)
def test_a_text_written_as_rtf_or_html_is_read_again(text: str) -> None:
    assert rtf_to_text(_as_rtf(text)) == text
    lines = "".join(f"<div>{html.escape(line)}</div>\n" for line in text.split("\n"))
    assert html_to_text(f"<html><body>{lines}</body></html>") == text


@given(st.text("\\{}'uparfb0123 \n", max_size=60))
def test_any_rtf_gives_a_text_or_a_reason(tail: str) -> None:
    reason = ""
    try:
        rtf_to_text("{\\rtf1 " + tail)
    except DicomError as error:
        reason = error.reason
    assert reason in ("", "report_format", "report_encoding")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("FINDINGS: size <3 cm, p < 0.05, a <b> c", "text"),
        ("{Impression} none", "text"),
        ("<p>hi</p>", "html"),
        ("<!-- x --><div class='y'>hi</div>", "html"),
    ],
)
def test_what_is_no_markup_stays_as_it_is(text: str, form: str) -> None:
    assert plain(text)[1] == form
    assert form == "html" or plain(text)[0] == text


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.4 ...", b"PK\x03\x04 a document", b"{\\rtf1 no end", b"{\\rtf1 {}",
        b"<?xml version='1.0'?><ClinicalDocument/>",
    ],
)  # fmt: skip
def test_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(DicomError) as caught:
        decode_report(data)
    assert caught.value.reason == "report_format"
