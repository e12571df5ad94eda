"""Whether an image shows a chest, from whatever its header has."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_dicom import bytes_of, dataset_of, dicom_bytes, ramp
from pydicom import Dataset, dcmread
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from lapvqa.dicom.body_part import chest_stated, find_body_part, part_of_words
from lapvqa.dicom.parse import parse

CHESTS = [
    "CHEST", "chest", "PORT CHEST", "CHEST_TO_ABDOMEN", "CHESTABDOMEN", "NECKCHEST", "THORAX",
    "TORAX", "T\u00f3rax", "LUNG", "LUNGS", "RIB", "RIBS", "HEART", "CHEST PA/LAT", "CXR", "Torace",
]  # fmt: skip
OTHERS = [
    "ABDOMEN", "SKULL", "HAND", "BREAST", "PELVIS", "KNEE", "TSPINE", "THORACIC SPINE", "SHOULDER",
    "CLAVICLE", "TRIBE", "LUNAR", "COLUMNA TORACICA",
]  # fmt: skip

CHEST_WORDS = [
    "Thorax p.a.", "W034 Chest P-A upright", "XR CHEST 1 VIEW", "TORAX AP DE PIE", "CHEST 6 FEET",
    "Radiographie pulmonaire de face", "Rippen links", "c\u00f4tes", "Parrilla costal",
    "RX torace in piedi", "Thorax im Liegen dorsal", "Hemithorax re", "\u80f8\u90e8\u6b63\u4f4d",
    "\u808b\u9aa8", "Radiograf\u00eda tor\u00e1cica", "CHEST LAT ARMS UP", "CHEST_PA",
]  # fmt: skip
OTHER_WORDS = [
    "Knie rechts", "LWS ap", "Hand dp", "ABDOMEN AP", "Becken", "Becken\u00fcbersicht",
    "XR SHOULDER", "RX RODILLA", "LSPINE AP", "T-SPINE", "BWS", "Brustwirbels\u00e4ule seitlich",
    "columna dorsal", "Columna tor\u00e1cica", "Rachis thoracique", "THORACIC SPINE LAT",
    "STERNUM",
    "Schl\u00fcsselbein", "CLAVICLE", "Genou droit", "main gauche", "Ginocchio", "Bacino AP",
    "Heup", "Joelho", "SKULL AP", "Fu\u00df", "Pie derecho", "H\u00e4nde", "Oberschenkel",
    "KNEE_3_VIEWS",
    "\u819d\u5173\u8282", "\u8170\u690e", "\u80f8\u690e", "\u80f8\u9aa8",
    "\u8179\u90e8",
    "Mano derecha",
]  # fmt: skip
BOTH = ["Thorax und Abdomen", "CHEST/ABDOMEN", "Babygram thorax abdomen", "Chest and left shoulder"]
NEITHER = [
    "", "PA", "AP liegend", "AP DE PIE", "in piedi", "LAT ARMS UP", "C-ARM", "6 FEET", "de face",
    "DORSAL", "Main Hospital", "Manchester", "supine", "Kanarienvogel", "lordotic", "72 INCH",
]  # fmt: skip


@pytest.mark.parametrize("text", CHESTS)
def test_chests_under_their_many_names(text: str) -> None:
    assert chest_stated(text) == "chest"


@pytest.mark.parametrize("text", OTHERS)
def test_another_part_is_not_a_chest(text: str) -> None:
    assert chest_stated(text) == "other"


@pytest.mark.parametrize("text", ["", " ", "UNKNOWN", "n/a", "-", "123", "None"])
def test_a_field_that_says_nothing_states_nothing(text: str) -> None:
    assert chest_stated(text) == ""


@pytest.mark.parametrize(
    ("texts", "part"),
    [(CHEST_WORDS, "chest"), (OTHER_WORDS, "other"), (BOTH, ""), (NEITHER, None)],
    ids=["chest", "other", "both", "neither"],
)
def test_words_of_descriptions(texts: list[str], part: str | None) -> None:
    assert {text: part_of_words(text) for text in texts} == dict.fromkeys(texts, part)


def region(value: str, meaning: str, scheme: str = "SCT") -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def shown(**attributes: Any) -> str:
    dataset = dataset_of(ramp(rows=70, cols=70))
    for name, value in attributes.items():
        setattr(dataset, name, value)
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return find_body_part(dcmread(BytesIO(stream.getvalue())))


@pytest.mark.parametrize(
    ("attributes", "part"),
    [
        ({"SeriesDescription": "Knie rechts"}, "other"),
        ({"ProtocolName": "LWS ap"}, "other"),
        ({"StudyDescription": "Becken"}, "other"),
        ({"BodyPartExamined": "UNKNOWN", "PerformedProcedureStepDescription": "Hand dp"}, "other"),
        ({"SeriesDescription": "Thorax pa"}, "chest"),
        ({"StudyDescription": "XR CHEST"}, "chest"),
        # The series is the image's own, the study may hold more.
        ({"SeriesDescription": "LWS ap", "StudyDescription": "Thorax"}, "other"),
        ({"SeriesDescription": "Thorax ap", "StudyDescription": "Knie"}, "chest"),
        ({"SeriesDescription": "AP", "StudyDescription": "Polytrauma Thorax, Becken"}, ""),
        ({"SeriesDescription": "Thorax und Abdomen", "StudyDescription": "Abdomen"}, ""),
        ({"AnatomicRegionSequence": region("72696002", "Knee")}, "other"),
        ({"AnatomicRegionSequence": region("51185008", "Chest")}, "chest"),
        ({"AnatomicRegionSequence": region("T-D3000", "x", "SRT")}, "chest"),
        ({"AnatomicRegionSequence": region("122495006", "Thoracic spine")}, "other"),
        ({"AnatomicRegionSequence": region("1", "Thorax", "99X")}, "chest"),
        ({"AnatomicRegionSequence": region("72696002", "Knee"), "SeriesDescription": "Thorax"},
         "other"),
        ({"AnatomicRegionSequence": [], "SeriesDescription": "Thorax"}, "chest"),
        # A device writes CHEST into every image, and LSPINE into none by itself.
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "LSPINE AP"}, "other"),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "AP", "StudyDescription": "Knie"},
         "chest"),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "Chest and Abdomen"}, "chest"),
        ({"BodyPartExamined": "KNEE", "SeriesDescription": "Thorax"}, "other"),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "QA Thorax"}, "other"),
        ({"SeriesDescription": "Thorax", "StudyDescription": "Konstanzpr\u00fcfung"}, "other"),
        ({"StudyDescription": "chest PHANTOM"}, "other"),
        # Never asked: names of persons.
        ({"PatientName": "Phantom", "PatientID": "QA"}, ""),
        ({"SpecificCharacterSet": "GB18030", "SeriesDescription": "\u819d\u5173\u8282"}, "other"),
        ({}, ""),
    ],
    ids=str,
)  # fmt: skip
def test_rules_and_their_order(attributes: dict[str, Any], part: str) -> None:
    assert shown(**attributes) == part


def test_codes_of_the_standards_regions() -> None:
    """Of the regions of CID 4031 (pydicom's table), those that hold a chest, and no other."""
    found = {}
    for scheme, names in cid_concepts[4031].items():
        for name in names:
            value, (meaning, _) = next(iter(concepts[scheme][name].items()))
            found[meaning] = shown(AnatomicRegionSequence=region(value, meaning))
            by_code = shown(AnatomicRegionSequence=region(value, "", scheme))
            assert by_code in ("", found[meaning]), meaning
    chests = {meaning for meaning, part in found.items() if part == "chest"}
    assert chests == {
        "Apex of Lung", "Chest", "Chest and Abdomen", "Chest, Abdomen and Pelvis", "Neck and Chest",
        "Neck, Chest and Abdomen", "Neck, Chest, Abdomen and Pelvis", "Rib", "Mediastinum",
        "Heart",
    }  # fmt: skip


@given(st.text(max_size=60))
def test_nothing_of_a_text_comes_out(text: str) -> None:
    assert part_of_words(text) in {"chest", "other", "", None}
    assert chest_stated(text) in {"chest", "other", ""}


def test_a_file_is_parsed_with_all_that_the_rules_need() -> None:
    data = dataset_of(ramp(rows=70, cols=70), AnatomicRegionSequence=region("72696002", "Knee"))
    assert parse(bytes_of(data)).header.body_part == "other"
    named = dicom_bytes(ramp(rows=70, cols=70), SeriesDescription="Knie rechts")
    assert parse(named).header.body_part == "other"
