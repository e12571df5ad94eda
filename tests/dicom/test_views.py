"""The view of an image, from whatever its header has."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_dicom import dataset_of, ramp
from pydicom import Dataset, dcmread
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from lapvqa.dicom.views import VIEWS, find_view, view_of_orientation, view_of_words

WORDS = {
    "CHEST PA": "PA",
    "Thorax p.a.": "PA",
    "W034 Chest P-A upright": "PA",
    "postero-anterior": "PA",
    "Thorax posteroanterior": "PA",
    "TORAX POSTERO ANTERIOR": "PA",
    "Thorax a.p. liegend": "AP",
    "CHEST (PORTABLE AP)": "AP",
    "Chest_AP_supine": "AP",
    "Thorax antéro-postérieur": "AP",
    "XR CHEST FRONTAL": "FRONTAL",
    "Radiographie du thorax de face": "FRONTAL",
    "T\u00f3rax frente": "FRONTAL",
    "frontal PA": "PA",
    "CHEST AP/PA": "FRONTAL",
    "Chest LAT": "LATERAL",
    "Chest lateral left": "LATERAL",
    "Thorax seitlich": "LATERAL",
    "thorax profil": "LATERAL",
    "TORAX PERFIL": "LATERAL",
    "torace latero-laterale": "LATERAL",
    "\u80f8\u90e8\u6b63\u4f4d": "FRONTAL",
    "\u80f8\u90e8\u4fa7\u4f4d": "LATERAL",
    "\u80f8\u90e8\u5074\u9762": "LATERAL",
    "\u80f8\u90e8PA": "PA",
    "\u80f8\u90e8\u540e\u524d\u4f4d": "PA",
    "CHEST LEFT LATERAL DECUBITUS": "DECUBITUS",
    "Chest LPO oblique": "OBLIQUE",
    "Thorax schr\u00e4g": "OBLIQUE",
    "AP lordotic": "AP AXIAL",
}
SEVERAL = [
    "CHEST (PA AND LAT)", "CHEST PA/LAT", "TORAX PA Y LATERAL", "Thorax p.a. und seitlich",
    "Thorax face et profil, de face", "CHEST PA 2 VIEWS", "XR CHEST 2V PA",
    "\u80f8\u90e8\u6b63\u4fa7\u4f4d", "\u80f8\u90e8\u6b63\u5074\u9762",
]  # fmt: skip
NONE = [
    "",
    "CHEST",
    "Thorax in 2 Ebenen",
    "bilateral",
    "PAAP",
    "Rippen",
    "PALLIATIVE",
    "SAP",
    "123",
]


@pytest.mark.parametrize("text", WORDS)
def test_words_that_name_a_view(text: str) -> None:
    assert view_of_words(text) == WORDS[text]
    assert WORDS[text] in VIEWS


@pytest.mark.parametrize("text", SEVERAL)
def test_words_that_name_several_views_name_none(text: str) -> None:
    assert view_of_words(text) == ""


@pytest.mark.parametrize("text", NONE)
def test_words_without_a_view(text: str) -> None:
    assert view_of_words(text) is None


@given(st.text(max_size=60))
def test_nothing_of_a_text_but_the_name_of_a_view_comes_out(text: str) -> None:
    assert view_of_words(text) in VIEWS | {"", None}
    assert view_of_orientation(text) in {"", "FRONTAL", "LATERAL"}


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("L\\F", "FRONTAL"), ("R\\F", "FRONTAL"), ("F\\L", "FRONTAL"), ("L\\H", "FRONTAL"),
        ("A\\F", "LATERAL"), ("P\\F", "LATERAL"), ("F\\P", "LATERAL"), ("LA\\F", ""),
        ("L\\FP", ""), ("L\\P", ""), ("L", ""), ("", ""), ("F\\H", ""), ("A\\P", ""), ("F\\F", ""),
    ],
)  # fmt: skip
def test_orientations(text: str, view: str) -> None:
    assert view_of_orientation(text) == view


def code(value: str = "", scheme: str = "SCT", meaning: str = "", modifier: str = "") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    if modifier:
        item.ViewModifierCodeSequence = [code(modifier)]
    return item


def seen(**attributes: Any) -> tuple[str, str | None]:
    """View and rule of an image without a View Position, unless one is given; written and read."""
    dataset = dataset_of(ramp(rows=70, cols=70), ViewPosition="")
    for name, value in attributes.items():
        setattr(dataset, name, value)
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return find_view(dcmread(BytesIO(stream.getvalue())))


FRONT, SIDE = ["L", "F"], ["A", "F"]


@pytest.mark.parametrize(
    ("attributes", "view", "rule"),
    [
        ({"ViewPosition": "AP", "PatientOrientation": SIDE, "SeriesDescription": "LAT"},
         "AP", "position"),
        ({"ViewPosition": "p.a."}, "PA", "position"),
        ({"ViewPosition": "Lateral left"}, "LATERAL", "position"),
        ({"ViewPosition": "THORAX", "SeriesDescription": "AP"}, "AP", "description"),
        ({"ViewCodeSequence": [code("399348003")]}, "AP", "code"),
        ({"ViewCodeSequence": [code("R-10206", "SRT")]}, "AP", "code"),
        ({"ViewCodeSequence": [code("R-10206", "SNM3")]}, "AP", "code"),
        ({"ViewCodeSequence": [code("1", "99X", "Postero-Anterior")]}, "PA", "code"),
        ({"ViewCodeSequence": [code("399348003", modifier="399196006")]}, "AP AXIAL", "code"),
        ({"ViewCodeSequence": [code("399348003", "99OWN")]}, "", None),
        ({"ViewCodeSequence": []}, "", None),
        ({"PatientOrientation": FRONT}, "FRONTAL", "orientation"),
        ({"PatientOrientation": SIDE}, "LATERAL", "orientation"),
        ({"SeriesDescription": "Thorax seitl."}, "LATERAL", "description"),
        ({"ProtocolName": "CHEST PA"}, "PA", "description"),
        ({"AcquisitionDeviceProcessingDescription": "CHEST AP"}, "AP", "description"),
        # Words say from which side, the orientation only that it is one.
        ({"PatientOrientation": FRONT, "SeriesDescription": "CHEST PA"}, "PA", "description"),
        # A device that writes L\\F into everything.
        ({"PatientOrientation": FRONT, "SeriesDescription": "CHEST LAT"}, "", None),
        ({"PatientOrientation": SIDE, "SeriesDescription": "CHEST PA"}, "", None),
        # The series holds both, the orientation is the image's own.
        ({"PatientOrientation": SIDE, "SeriesDescription": "PA + LAT"}, "LATERAL", "orientation"),
        ({"SeriesDescription": "PA + LAT", "StudyDescription": "CHEST PA"}, "", None),
        ({"StudyDescription": "CHEST PA"}, "PA", "study"),
        ({"PerformedProcedureStepDescription": "CHEST (PA AND LAT)", "StudyDescription": "PA"},
         "", None),
        ({"SpecificCharacterSet": "GB18030",
          "SeriesDescription": "\u80f8\u90e8\u6b63\u4f4d"}, "FRONTAL", "description"),
        ({"SpecificCharacterSet": "ISO_IR 192", "ProtocolName": "T\u00f3rax AP"},
         "AP", "description"),
        ({}, "", None),
        ({"SeriesDescription": "Kanarienvogel"}, "", None),
    ],
    ids=str,
)  # fmt: skip
def test_rules_and_their_order(attributes: dict[str, Any], view: str, rule: str | None) -> None:
    assert seen(**attributes) == (view, rule)


def test_codes_are_those_of_pydicoms_table() -> None:
    """SNOMED CT and RT codes of CID 4010, and their meanings, come to the same view."""
    known = {}
    for scheme, names in cid_concepts[4010].items():
        for name in names:
            value, (meaning, _) = next(iter(concepts[scheme][name].items()))
            by_code = seen(ViewCodeSequence=[code(value)])[0]
            by_old_code = seen(ViewCodeSequence=[code(mapping["SCT"][value], "SRT")])[0]
            by_meaning = seen(ViewCodeSequence=[code("0", "99", meaning)])[0]
            assert by_code == by_old_code, meaning
            assert not by_meaning or by_meaning == by_code, meaning
            known[meaning] = by_code
    assert (known["antero-posterior"], known["postero-anterior"]) == ("AP", "PA")
    assert (known["frontal"], known["lateral"]) == ("FRONTAL", "LATERAL")
    assert known["left anterior oblique"] == "LAO"
    assert not known["cranio-caudal"]
    assert sum(map(bool, known.values())) > 15
