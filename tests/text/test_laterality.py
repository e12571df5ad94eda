"""Texts that name a side are found, by word, abbreviation and place; others are left alone."""

from __future__ import annotations

import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from lapvqa.text.laterality import names_side


@pytest.mark.parametrize(
    "text",
    [
        "Left pleural effusion.", "RIGHT lung clear", "the right-sided port", "leftward shift",
        "midright lung", "Rightmost lead", "a left-to-right shunt", "___right apex", "left.",
        "Lt base", "RT hilum", "R>L opacity", "the L lung", "(L) effusion", "R IJ line", "RIJ line",
        "RUL nodule", "LLL collapse", "RML/RLL", "pain in the RUQ", "LV enlarged", "dextrocardia",
        "dextro curvature", "Levoscoliosis", "dextro-convex", "situs inversus", "lingular opacity",
        "the middle lobe", "minor fissure", "azygos fissure", "left\nlung", "Lungs:left clear",
    ],
)  # fmt: skip
def test_a_side_is_named(text: str) -> None:
    assert names_side(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "No acute process.", "Bilateral effusions.", "Both lungs are clear.", "Unilateral.",
        "Upright chest.", "Brighter", "The L1 and L2 vertebrae, L5/S1.", "L-spine", "R/O pneumonia",
        "Large heart, low volumes, lower lobe.", "PA and lateral", "Lleft", "copyright",
        "major fissure", "the middle of the lobe", "Leftover", "AR, LR5", "level", "Dr. Wright",
    ],
)  # fmt: skip
def test_no_side_is_named(text: str) -> None:
    assert not names_side(text)


@pytest.mark.corpus
def test_sides_that_indexers_found_in_openi(corpus: Path) -> None:
    """Of the reports that a human indexer gave a left or right, all but one name it themselves."""
    sided, missed = 0, []
    with tarfile.open(corpus / "openi" / "NLMCXR_reports.tgz") as archive:
        for member in archive:
            handle = archive.extractfile(member)
            if handle is None or not member.name.endswith(".xml"):
                continue
            root = ElementTree.parse(handle).getroot()
            terms = {part for term in root.iter("major") for part in (term.text or "").split("/")}
            text = " ".join(
                part.text or ""
                for part in root.iter("AbstractText")
                if part.attrib["Label"] in ("FINDINGS", "IMPRESSION")
            )
            if {"left", "right"} & terms and text.strip():
                sided += 1
                if not names_side(text):
                    missed.append(Path(member.name).stem)
    assert sided > 1000
    assert len(missed) == 1, missed  # its text names no side anywhere
