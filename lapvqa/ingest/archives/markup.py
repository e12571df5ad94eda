"""Texts in RTF and HTML to plain text: recognised by content, converted by the two standards.

RTF 1.9.1: groups, control words, \\'hh in the code page of the font or of the document, \\uN with
its substitutes, paragraphs, tabs, cells; destinations that are no text of the document (font table,
styles, information, pictures, headers, fields' instructions) are skipped. HTML: what stands in the
body, a line for each block, list item and row; entities; nothing of head, script and style.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError

_HTML = re.compile(
    r"\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|body|div|p|pre|table|span|font"
    r"|b|h[1-6])\b[^>]*>",
    re.IGNORECASE | re.DOTALL,
)
_OTHER_FORMATS = (
    (b"%PDF-", "PDF"), (b"PK\x03\x04", "a zip, such as DOCX"), (b"\xd0\xcf\x11\xe0", "DOC"),
    (b"%!PS", "PostScript"), (b"\x1f\x8b", "gzip"), (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)  # fmt: skip
_TOKEN = re.compile(
    r"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|[\r\n]+"
    r"|([^\\{}\r\n]+)",
    re.DOTALL,
)
_SKIPPED = frozenset(
    {
        "fonttbl", "colortbl", "stylesheet", "info", "pict", "object", "header", "headerl",
        "headerr", "headerf", "footer", "footerl", "footerr", "footerf", "footnote", "fldinst",
        "datastore", "themedata", "colorschememapping", "latentstyles", "listtable",
        "listoverridetable", "rsidtbl", "generator", "xmlnstbl", "bkmkstart", "bkmkend",
        "annotation",
        "filetbl", "revtbl", "pntext", "nonshppict", "template", "operator", "author",
    }
)  # fmt: skip
_WRITTEN = {
    "par": "\n", "line": "\n", "sect": "\n", "page": "\n", "row": "\n", "column": "\n",
    "tab": "\t", "cell": "\t", "nestcell": "\t", "nestrow": "\n",
    "emdash": "—", "endash": "–", "lquote": "‘", "rquote": "’", "ldblquote": "“",
    "rdblquote": "”", "bullet": "•", "emspace": " ", "enspace": " ", "qmspace": " ",
}  # fmt: skip
_SYMBOLS = {"~": "\xa0", "_": "-", "-": "", "\n": "\n", "\r": "\n", "{": "{", "}": "}", "\\": "\\"}
# Character sets of fonts (\fcharset) to code pages; those of RTF 1.9.1 that Python has.
_CODE_PAGES = {
    77: "mac_roman", 128: "cp932", 129: "cp949", 134: "gb18030", 136: "cp950",
    161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257",
    204: "cp1251", 222: "cp874", 238: "cp1250", 255: "cp850",
}  # fmt: skip
_DOCUMENT_PAGES = {"ansi": "cp1252", "mac": "mac_roman", "pc": "cp437", "pca": "cp850"}
_BLOCKS = frozenset(
    {
        "address", "article", "blockquote", "body", "center", "dd", "div", "dl", "dt", "footer",
        "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "li", "ol", "p", "pre",
        "section", "table", "tr", "ul",
    }
)  # fmt: skip
_SILENT = frozenset({"head", "script", "style", "title", "template", "noscript"})


def require_text(data: bytes) -> None:
    """Raise DicomError REPORT_FORMAT for a document of which no text is read: PDF, DOCX..."""
    for mark, name in _OTHER_FORMATS:
        if data.startswith(mark):
            raise DicomError(Reason.REPORT_FORMAT, f"expected text, RTF or HTML, found {name}")


def plain(text: str) -> tuple[str, str]:
    """Return the plain text, and the format that it was in: text, rtf or html.

    Raises DicomError REPORT_FORMAT for XML of another kind, and for what is damaged.
    """
    if text.lstrip().startswith("{\\rtf"):
        return rtf_to_text(text.lstrip()), "rtf"
    if _HTML.match(text):
        return html_to_text(text), "html"
    if text.lstrip().startswith("<?xml"):
        raise DicomError(Reason.REPORT_FORMAT, "expected text, RTF or HTML, found XML")
    return text, "text"


@dataclass(frozen=True)
class _Group:
    """What a group of RTF inherits and changes."""

    page: str
    skipped: bool = False
    substitutes: int = 1  # \ucN: so many bytes or characters follow a \uN for older readers
    in_fonts: bool = False


class _Rtf:
    """The state of reading one RTF text."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._bytes = bytearray()
        self._group = _Group("cp1252")
        self._outer: list[_Group] = []
        self._document = "cp1252"
        self._fonts: dict[int, str | None] = {}  # None: the document's own
        self._font = 0
        self._default_font = 0
        self._to_skip = 0
        self._surrogate = 0
        self._begins = False
        self.closed = False

    def read(self, text: str) -> str:
        place = 0
        while place < len(text) and not self.closed:
            token = _TOKEN.match(text, place)
            if token is None:
                raise _broken()
            place = token.end()
            word, number, code, symbol, brace, chars = token.groups()
            if word == "bin":
                place += max(0, int(number or 0))
            elif brace:
                self._brace(brace)
            elif code:
                self._hex(int(code, 16))
            elif word:
                self._word(word, int(number) if number else None)
            elif symbol == "*":
                self._group = replace(self._group, skipped=True)
            elif symbol:
                self._write(_SYMBOLS.get(symbol, ""))
            elif chars:
                self._write(chars)
        if not self.closed:
            raise _broken()
        return "".join(self._out)

    def _brace(self, brace: str) -> None:
        self._flush()
        self._to_skip = 0
        if brace == "{":
            self._outer.append(self._group)
        elif self._outer:
            self._group = self._outer.pop()
            self.closed = not self._outer
        else:
            raise _broken()

    def _hex(self, code: int) -> None:
        if self._to_skip:
            self._to_skip -= 1
        elif not self._group.skipped:
            self._bytes.append(code)

    def _word(self, word: str, number: int | None) -> None:
        if word != "u":
            self._flush()
        if word in _SKIPPED:
            self._group = replace(self._group, skipped=True, in_fonts=word == "fonttbl")
        elif word in _DOCUMENT_PAGES:
            self._set_page(_DOCUMENT_PAGES[word])
        elif word == "ansicpg" and number:
            self._set_page("gb18030" if number == 936 else f"cp{number}")
        elif word == "deff":
            self._default_font = number or 0
        elif word == "f":
            self._font = number or 0
            if not self._group.in_fonts and self._font in self._fonts:
                self._group = replace(self._group, page=self._page_of(self._font))
        elif word == "plain" and self._default_font in self._fonts:
            self._group = replace(self._group, page=self._page_of(self._default_font))
        elif word == "fcharset" and self._group.in_fonts:
            self._fonts[self._font] = _CODE_PAGES.get(number or 0)
        elif word == "uc":
            self._group = replace(self._group, substitutes=number or 0)
        elif word == "u" and number is not None:
            self._unicode(number % 65536)
        elif word in _WRITTEN:
            self._write(_WRITTEN[word])

    def _page_of(self, font: int) -> str:
        return self._fonts[font] or self._document

    def _set_page(self, page: str) -> None:
        self._document = page
        self._group = replace(self._group, page=page)
        self._outer = [replace(group, page=page) for group in self._outer]

    def _unicode(self, code: int) -> None:
        self._flush()
        if not self._group.skipped:
            if 0xD800 <= code < 0xDC00:
                self._surrogate = code
            elif 0xDC00 <= code < 0xE000 and self._surrogate:
                low = ((self._surrogate - 0xD800) << 10) + code - 0xDC00
                self._out.append(chr(0x10000 + low))
            elif not 0xD800 <= code < 0xE000:
                self._out.append(chr(code))
        self._to_skip = self._group.substitutes

    def _write(self, chars: str) -> None:
        skipped = min(self._to_skip, len(chars))
        self._to_skip -= skipped
        chars = chars[skipped:]
        if self._group.skipped or not chars:
            return
        # The second byte of a pair may be written as a letter: 83 then "A" in Shift-JIS.
        is_second = self._bytes and _wants_more(bytes(self._bytes), self._group.page)
        if is_second and ord(chars[0]) < 256:
            self._bytes.append(ord(chars[0]))
            chars = chars[1:]
        self._flush()
        self._out.append(chars)

    def _flush(self) -> None:
        if self._bytes:
            try:
                self._out.append(bytes(self._bytes).decode(self._group.page))
            except (UnicodeDecodeError, LookupError):
                raise DicomError(
                    Reason.REPORT_ENCODING, "expected RTF in its own code page, found other bytes"
                ) from None
            self._bytes.clear()


def _wants_more(data: bytes, page: str) -> bool:
    try:
        data.decode(page)
    except UnicodeDecodeError as error:
        return error.reason.startswith(("incomplete", "unexpected end"))
    except LookupError:
        pass
    return False


def _broken() -> DicomError:
    return DicomError(Reason.REPORT_FORMAT, "expected whole RTF, found groups that do not close")


def rtf_to_text(text: str) -> str:
    """Return the text of an RTF document; raises DicomError REPORT_FORMAT, REPORT_ENCODING.

    ``text`` holds bytes beyond ASCII as characters below 256, or is plain ASCII as RTF asks for.
    """
    return _tidy(_Rtf().read(text))


def html_to_text(text: str) -> str:
    """Return the text of an HTML document or fragment."""
    parser = _Html()
    parser.feed(text)
    parser.close()
    return _tidy("".join(parser.out))


class _Html(HTMLParser):
    """Collects text; blocks and line breaks become line ends."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self._silent: list[str] = []
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a line at a block, a cell's gap, or a part that shows no text."""
        if tag in _SILENT:
            self._silent.append(tag)
        elif tag == "body":  # a head that was never closed
            self._silent.clear()
        elif tag == "br" or tag in _BLOCKS:
            self._line(always=tag == "br")
        elif tag in ("td", "th"):
            self.out.append("\t")
        self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        """End a line at the end of a block."""
        if tag in self._silent:
            del self._silent[self._silent.index(tag) :]
        elif tag in _BLOCKS:
            self._line(always=tag == "p")
        self._pre -= tag == "pre" and self._pre > 0

    def handle_data(self, data: str) -> None:
        """Take text; outside of pre, white space is a single space."""
        if self._silent:
            return
        if not self._pre:
            data = re.sub(r"[ \t\r\n\f]+", " ", data)
            if not self.out or self.out[-1].endswith("\n"):
                data = data.lstrip(" ")
        if data:
            self.out.append(data)

    def _line(self, *, always: bool) -> None:
        if not self._silent and (always or (self.out and not self.out[-1].endswith("\n"))):
            self.out.append("\n")


def _tidy(text: str) -> str:
    """Strip lines, and keep at most one empty line between two."""
    lines = [line.strip(" \t\xa0\f") for line in text.replace("\r\n", "\n").split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
