"""Section rules of MIMIC-CXR, oddities included, and the choice of the target text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapvqa.text.sections import (
    Verdict,
    normalise,
    parse,
    parse_plain,
    section_name,
    target_text,
)

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough.

 FINDINGS:\x20

 The heart is normal in size.  There is
 no pleural effusion.

 IMPRESSION:\x20

 No acute process.
"""

PIECES = st.sampled_from(
    [
        "\n FINDINGS: ", "\n IMPRESSION:\n", "\n ", "\n", "\n \n", "\n\n", " ", "Lungs are clear.",
        "___", "\n CHEST, TWO VIEWS: ", "\n WET READ: ", "FINDINGS: ", "Impression: normal",
        "\r\n", "2 cm",
    ]
)  # fmt: skip
REPORTS = st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(max_size=40))


def _texts(report: str) -> list[tuple[str, str]]:
    return [(section.name, section.text(report)) for section in parse(report)]


def test_a_typical_report() -> None:
    names = [section.name for section in parse(REPORT)]
    assert names == ["preamble", "examination", "indication", "findings", "impression"]
    target = target_text(REPORT, "both")
    assert target.text == (
        "The heart is normal in size. There is no pleural effusion. No acute process."
    )
    assert [span.name for span in target.spans] == ["findings", "impression"]
    assert normalise(target.spans[1].text(REPORT)) == "No acute process."
    assert target.verdict is Verdict.FINDINGS_AND_IMPRESSION


def test_rule_1_what_is_a_header() -> None:
    header_missed = [
        "FINDINGS: on the first line\n",
        "\nFINDINGS: no space before it\n",
        "\n\tFINDINGS: a tab before it\n",
        "\n Findings: small letters\n",
        "\n FINDINGS 2: a digit\n",
        "\n FINDINGS:no white space after it\n",
    ]
    for report in header_missed:
        assert [name for name, _ in _texts(report)] == ["full report"], report


def test_rule_2_a_second_header_on_the_line_is_text() -> None:
    report = "\n IMPRESSION: one\n FINDINGS: two"
    assert [name for name, _ in _texts(report)] == ["preamble", "impression", "findings"]
    # The white space after the colon was the line's end, so the next line is passed over.
    swallowed = "\n COMPARISON:\n FINDINGS: two"
    assert _texts(swallowed) == [("preamble", "\n "), ("comparison", " FINDINGS: two")]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("CONCLUSION", "impression"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("CHEST, TWO VIEWS", "findings"),
        ("REASON FOR EXAM", "indication"),
        ("PFI", "history"),
        ("IMPRESSON", "impression"),
        ("FINDINS", "findings"),
        ("NDICATION", "impression"),  # the trap of the original, kept
        ("CONCUSION", "conclusion"),  # another one
        ("HISTORY OF IMPRESSION", "impression"),  # impression is looked for first
        ("RELEVANT HISTORY", "history"),
        ("AP VIEW (PORTABLE)", "findings"),
        ("TECHNIQUE", "technique"),
        ("NOTES", "notes"),
    ],
)
def test_rule_3_names(header: str, name: str) -> None:
    assert section_name(header) == name


def test_rule_4_blank_targets_are_dropped() -> None:
    report = "\n FINDINGS:  \n \n IMPRESSION: normal"
    assert [name for name, _ in _texts(report)] == ["preamble", "impression"]


def test_rule_4_last_paragraph() -> None:
    report = "FINAL REPORT\n HISTORY:  Cough.\n \n Lungs are clear.\n \n No effusion."
    assert _texts(report)[1:] == [
        ("history", " Cough."),
        ("last_paragraph", " Lungs are clear.\n \n No effusion."),
    ]
    assert target_text(report, "both").text == "Lungs are clear. No effusion."
    assert target_text(report, "findings").verdict is Verdict.NO_SECTION


def test_the_last_section_of_a_name_counts() -> None:
    report = "\n IMPRESSION: first text\n IMPRESSION: final text"
    assert target_text(report, "impression").text == "final text"


LINE = " " + "_" * 78 + "\n"
WET_READ = " WET READ: ___ ___ ___ 9:02 PM\n  Right effusion.\n  WET READ VERSION #1\n" + LINE
ADDENDUM = (
    " " * 33 + "FINAL ADDENDUM\n ADDENDUM:  A nodule is seen.\n\n IMPRESSION:  Nodule.\n" + LINE
)


@pytest.mark.parametrize("above", ["", WET_READ, ADDENDUM, WET_READ + ADDENDUM, 2 * ADDENDUM])
def test_wet_reads_and_addenda_above_do_not_hide_the_report(above: str) -> None:
    target = target_text(above + REPORT, "both")
    assert target.text == target_text(REPORT, "both").text
    held = [normalise(span.text(above + REPORT)) for span in target.spans]
    assert " ".join(held) == target.text
    bare = REPORT[: REPORT.index(" FINDINGS")] + " The heart is large.\n \n Lungs are clear.\n"
    found = target_text(above + bare, "both")
    if "IMPRESSION" in above:  # the report has none of its own
        assert (found.text.split()[0], found.verdict) == ("Nodule.", Verdict.IMPRESSION)
    else:
        assert found.verdict is Verdict.LAST_PARAGRAPH


def test_a_report_that_is_a_wet_read_alone() -> None:
    target = target_text("\n" + WET_READ.replace(LINE, "") + " \n Lungs are clear.\n", "both")
    assert (target.text, target.verdict) == ("Lungs are clear.", Verdict.LAST_PARAGRAPH)


def test_an_addendum_below_a_report() -> None:
    plain = "Findings: Clear.\nImpression: Normal.\nAddendum: call.\nImpression: Nodule.\n"
    assert target_text(plain, "both").text == "Clear. Normal."
    above = "Addendum: call.\nImpression: Nodule.\nFindings: Clear.\nImpression: Normal.\n"
    assert target_text(above, "both").text == "Clear. Normal."
    # MIMIC-CXR has them above only; its rule, the last one counts, is kept to the letter.
    theirs = "\n FINDINGS: Clear.\n IMPRESSION: Normal.\n ADDENDUM: call.\n IMPRESSION: Nodule."
    assert target_text(theirs, "both").text == "Clear. Nodule."


@pytest.mark.parametrize(
    ("report", "text", "verdict"),
    [
        # The first line has no line end before it, so its header is not seen.
        (" FINDINGS: Clear.\n IMPRESSION: Normal.", "Normal.", "impression"),
        # If nothing else is seen either, plain headers are looked for.
        (" FINDINGS: Clear.\n", "Clear.", "findings"),
        # Two on one line: the second is text.
        ("\n FINDINGS: Clear. IMPRESSION: Normal.", "Clear. IMPRESSION: Normal.", "findings"),
        # Digits and small letters are no header in a report that has others.
        ("\n FINDINGS: Clear.\n VIEW 2: Same.", "Clear. VIEW 2: Same.", "findings"),
        ("\n FINDINGS: Clear.\n Impression: x", "Clear. Impression: x", "findings"),
        # Misspelt ones, and findings under the name of the examination.
        ("\n FINDNGS: Clear.\n IMPRESSOIN: Normal.", "Clear. Normal.", "findings+impression"),
        ("\n CHEST, PA AND LATERAL: Clear.", "Clear.", "findings"),
        ("\n PORTABLE UPRIGHT RADIOGRAPH: Clear.\n CONCLUSION: Ok.", "Clear. Ok.",
         "findings+impression"),
        # A title that is an examination and stands above the real sections is blank, so it goes.
        ("\n CHEST, TWO VIEWS:\n \n INDICATION: Cough.\n FINDINGS: Clear.", "Clear.", "findings"),
        # The trap: an indication without its first letter is taken for the impression.
        ("\n NDICATION: Cough.\n FINDINGS: Clear.", "Clear. Cough.", "findings+impression"),
        # No section at all: the paragraphs after the first one of the last section.
        ("\n HISTORY: Cough.\n \n Clear.\n \n No effusion.", "Clear. No effusion.",
         "last_paragraph"),
        ("The lungs are clear.", "The lungs are clear.", "full_report"),
    ],
)  # fmt: skip
def test_traps(report: str, text: str, verdict: str) -> None:
    target = target_text(report, "both")
    assert (target.text, target.verdict) == (text, verdict)


@pytest.mark.parametrize(
    ("report", "wanted", "text"),
    [
        ("The lungs are\nclear.", "both", "The lungs are clear."),
        ("Findings: Lungs clear.\nImpression:\n  Normal.", "both", "Lungs clear. Normal."),
        ("FINDINGS: Lungs clear.\nIMPRESSION: Normal.", "findings", "Lungs clear."),
        ("History: cough.\n\nThe lungs are clear.", "both", "The lungs are clear."),
        ("\n FINDINGS: ___\n IMPRESSION: Normal.", "both", "Normal."),
        ("\n FINDINGS: Clear.\n", "both", "Clear."),
        ("\n EXAMINATION: CHEST\n Findings: Clear.", "both", "Clear."),
        ("Age ___,  lungs\t clear", "both", "Age ___, lungs clear"),
        ("Lungs clear.\n \n ___", "both", "Lungs clear. ___"),
    ],
)
def test_reports_of_other_hospitals(report: str, wanted: str, text: str) -> None:
    target = target_text(report, wanted)
    assert target.verdict.has_text
    assert target.text == text


@pytest.mark.parametrize(
    ("report", "wanted", "verdict"),
    [
        (None, "both", Verdict.NO_REPORT),
        ("", "both", Verdict.EMPTY_REPORT),
        (" \n ___ .\n", "both", Verdict.EMPTY_REPORT),
        ("The lungs are clear.", "impression", Verdict.NO_SECTION),
        ("\n INDICATION: cough", "both", Verdict.NO_SECTION),
        ("\n HISTORY: cough\n FINDINGS: ___.\n", "both", Verdict.EMPTY_SECTION),
    ],
)
def test_reports_without_a_target(report: str | None, wanted: str, verdict: Verdict) -> None:
    target = target_text(report, wanted)
    assert (target.verdict, target.text, target.spans) == (verdict, "", ())


@given(REPORTS)
def test_sections_lie_in_order_inside_the_report(report: str) -> None:
    for sections in (parse(report), parse_plain(report)):
        assert sections
        assert all(0 <= one.start <= one.end <= len(report) for one in sections)
        # A header may touch the text before it, by the newline and space that begin it.
        assert all(
            after.start >= before.end - 2
            for before, after in zip(sections, sections[1:], strict=False)
        )


@given(REPORTS, st.sampled_from(["findings", "impression", "both"]))
def test_the_target_is_what_the_spans_hold(report: str, wanted: str) -> None:
    target = target_text(report, wanted)
    held = " ".join(normalise(span.text(report)) for span in target.spans)
    assert target.text == held
    assert target.verdict.has_text == any(map(str.isalnum, target.text))
    assert normalise(target.text) == target.text


@given(st.text(max_size=80))
def test_normalising_changes_nothing_but_white_space(text: str) -> None:
    once = normalise(text)
    assert "".join(once.split()) == "".join(text.split())
    assert normalise(once) == once
