"""What names a section: columns and coded headings here, headers of texts in params/reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapvqa.ingest.archives.headings import heading_of
from lapvqa.text.languages import load_languages


def test_what_both_lists_know_is_the_same_section() -> None:
    tables = load_languages(Path(__file__).parents[2]).by_code
    both = [
        (code, header, section.upper().replace("RECOMMENDATIONS", "RECOMMENDATION"))
        for code, language in tables.items()
        for section, header in language.table.sections.pairs()
        if heading_of(header)
    ]
    assert len(both) > 60
    assert [one for one in both if heading_of(one[1]) != one[2]] == []


@pytest.mark.parametrize("name", ["Diagnose", "Ergebnis", "Untersuchung", "Procedure", "Exam"])
def test_columns_that_hold_no_report_name_no_section(name: str) -> None:
    assert heading_of(name) == ""


def test_a_column_of_all_in_one_is_the_impression_as_the_header_of_a_text_is() -> None:
    for name in ("Befund und Beurteilung", "Befund/Beurteilung", "Findings and Impression"):
        assert heading_of(name) == "IMPRESSION"
