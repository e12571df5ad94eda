"""Kinds of DICOM objects: what is a companion of the images, what another image, what is raw."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from made_dicom import bytes_of, dataset_of, dicom_bytes, ramp, small_image
from pydicom import Dataset
from pydicom import uid as uids
from pydicom.fileset import FileSet
from pydicom.uid import UID_dictionary

from lapvqa.dicom.header import CompanionError
from lapvqa.dicom.objects import companion_kind
from lapvqa.dicom.parse import parse
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError


def without_pixels(**attributes: Any) -> bytes:
    """An object of a patient's study that has no pixel data."""
    dataset = dataset_of(ramp())
    for name in ("PixelData", "Rows", "Columns", "BitsStored", "PhotometricInterpretation"):
        delattr(dataset, name)
    for name, value in {"AccessionNumber": "A77", **attributes}.items():
        setattr(dataset, name, value)
    return loosely(dataset)


def loosely(dataset: Dataset) -> bytes:
    """The file of a data set that lacks what a file should have."""
    dataset.preamble = b"\0" * 128
    stream = BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


COMPANIONS = {
    "structured_report": {"SOPClassUID": uids.BasicTextSRStorage, "Modality": "SR"},
    "presentation_state": {
        "SOPClassUID": uids.GrayscaleSoftcopyPresentationStateStorage, "Modality": "PR",
    },
    "key_object": {
        "SOPClassUID": uids.KeyObjectSelectionDocumentStorage, "Modality": "KO",
    },
    "encapsulated_document": {"SOPClassUID": uids.EncapsulatedPDFStorage, "Modality": "DOC"},
    "waveform": {"SOPClassUID": uids.GeneralECGWaveformStorage, "Modality": "ECG"},
    "radiotherapy": {"SOPClassUID": uids.RTPlanStorage, "Modality": "RTPLAN"},
    "segmentation": {"SOPClassUID": uids.SegmentationStorage, "Modality": "SEG"},
    "other_object": {"SOPClassUID": uids.SpatialRegistrationStorage, "Modality": "REG"},
}  # fmt: skip


def companion(data: bytes) -> CompanionError:
    with pytest.raises(CompanionError) as caught:
        parse(data)
    assert caught.value.reason == Reason.COMPANION
    return caught.value


@pytest.mark.parametrize("kind", COMPANIONS)
@pytest.mark.parametrize("told_by", ["class", "file meta", "modality"])
def test_what_is_no_image_is_a_companion_that_knows_its_study(kind: str, told_by: str) -> None:
    stated = COMPANIONS[kind]
    if told_by == "class":
        data = without_pixels(**{**stated, "Modality": "CR"})
    elif told_by == "file meta":
        dataset = dataset_of(ramp(), **{**stated, "Modality": ""})
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        del dataset.SOPClassUID
        dataset.AccessionNumber = "A77"
        data = loosely(dataset)
    else:
        data = without_pixels(SOPClassUID="", Modality=stated["Modality"])
    found = companion(data)
    assert found.message == kind
    header = found.header
    assert (header.study_uid, header.patient_id, header.accession) == ("1.2.3", "patient 1", "A77")


def test_a_dicomdir_is_known_by_its_file_meta_alone(tmp_path: Path) -> None:
    directory = FileSet()
    directory.add(dataset_with_ids())
    directory.write(tmp_path)
    assert companion((tmp_path / "DICOMDIR").read_bytes()).message == "dicomdir"


def dataset_with_ids() -> Dataset:
    dataset = dataset_of(small_image(0), bits=8)
    dataset.SeriesInstanceUID, dataset.StudyID = "1.2.3.9", "1"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def test_every_class_of_the_standard_is_an_image_or_a_companion() -> None:
    storage = {
        uid: name
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class" and "Storage" in name and uid.startswith("1.2.840.10008.5.1.4.1.1.")
    }
    assert len(storage) > 150
    for uid, name in storage.items():
        kind = companion_kind(uid, "")
        assert (kind is None) == ("Image Storage" in name), name
        if " SR Storage" in name:
            assert kind == "structured_report"
        if "Presentation State" in name:
            assert kind == "presentation_state"


@pytest.mark.parametrize(
    ("attributes", "modality"),
    [
        ({"Modality": "DX"}, "DX"),
        ({"Modality": "CR"}, "CR"),
        ({"Modality": "DR"}, "DX"),
        ({"Modality": "XR"}, "DX"),
        ({"Modality": "RG"}, "RG"),
        ({"Modality": "RF", "SOPClassUID": uids.XRayRadiofluoroscopicImageStorage}, "RF"),
        ({"Modality": "", "SOPClassUID": uids.XRayAngiographicImageStorage}, "XA"),
        ({"Modality": "OT", "SOPClassUID": uids.SecondaryCaptureImageStorage}, "OT"),
        ({"Modality": "", "SOPClassUID": uids.ComputedRadiographyImageStorage}, "CR"),
        ({"Modality": "", "SOPClassUID": uids.SecondaryCaptureImageStorage}, "SC"),
        ({"Modality": "CR", "SOPClassUID": uids.SecondaryCaptureImageStorage}, "CR"),
        (
            {
                "Modality": "DX", "SOPClassUID": uids.SecondaryCaptureImageStorage,
                "ConversionType": "WSD",
            },
            "SC",
        ),
        ({"Modality": "CR", "SOPClassUID": "1.2.392.200036.9125.1.1.2"}, "CR"),  # Fuji's own
        ({"Modality": "", "SOPClassUID": ""}, "none"),
        ({"Modality": "", "SOPClassUID": "1.2.392.200036.9125.1.1.2"}, "none"),
    ],
    ids=str,
)  # fmt: skip
def test_what_may_be_a_radiograph_is_named_not_judged(
    attributes: dict[str, Any], modality: str
) -> None:
    assert parse(loosely(dataset_of(ramp(), **attributes))).header.modality == modality


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "CT"},
        {"Modality": "MR"},
        {"Modality": "US"},
        {"Modality": "MG"},
        {"Modality": "ES"},
        {"Modality": "OT", "SOPClassUID": uids.VLEndoscopicImageStorage},
        {"Modality": "", "SOPClassUID": uids.CTImageStorage},
        {"Modality": "CR", "SOPClassUID": uids.UltrasoundImageStorage},
        {"Modality": "RTIMAGE", "SOPClassUID": uids.RTImageStorage},
        {
            "Modality": "MG",
            "SOPClassUID": uids.DigitalMammographyXRayImageStorageForProcessing,
        },
    ],
    ids=str,
)
def test_an_image_of_another_modality_is_turned_away(attributes: dict[str, Any]) -> None:
    with pytest.raises(DicomError) as caught:
        parse(dicom_bytes(ramp(), **attributes))
    assert caught.value.reason == Reason.NOT_A_RADIOGRAPH


DERIVED: dict[str, Any] = {
    "ImageType": ["DERIVED", "PRIMARY"],
    "SpecificCharacterSet": "ISO_IR 192",
}


@pytest.mark.parametrize(
    ("expected", "attributes"),
    [
        (True, {"ImageType": ["DERIVED", "PRIMARY", "BONE SUPPRESSED"]}),
        (True, {"ImageType": ["DERIVED", "SECONDARY", "SOFT_TISSUE"]}),
        (True, {**DERIVED, "SeriesDescription": "Chest PA rib-suppressed"}),
        (True, {**DERIVED, "SeriesDescription": "Thorax Knochenunterdrückung"}),
        (True, {**DERIVED, "DerivationDescription": "ClearRead Bone Suppress"}),
        (True, {**DERIVED, "DerivationDescription": "dual energy subtraction"}),
        (False, DERIVED),
        (False, {"ImageType": ["DERIVED", "PRIMARY", "POST_PROCESSED"]}),
        (False, {**DERIVED, "SeriesDescription": "Neck soft tissue"}),
        (False, {**DERIVED, "DerivationDescription": "Edge enhancement"}),
        (False, {"ImageType": ["ORIGINAL"], "SeriesDescription": "no bone suppression"}),
        (False, {"ImageType": "DERIVED", "SeriesDescription": "Ribs, bone survey"}),
        (False, {"ImageType": None}),
        (False, {}),
    ],
    ids=str,
)
def test_pictures_that_software_made_of_others_are_known(
    expected: bool, attributes: dict[str, Any]
) -> None:
    assert parse(dicom_bytes(ramp(), **attributes)).header.is_post_processed is expected


def test_raw_images_are_known_by_their_intent_or_their_class() -> None:
    raw = uids.DigitalXRayImageStorageForProcessing
    assert not parse(bytes_of(dataset_of(ramp()))).header.is_for_processing
    for attributes in (
        {"SOPClassUID": raw},
        {"PresentationIntentType": "FOR PROCESSING"},
        {"SOPClassUID": raw, "PresentationIntentType": "FOR PRESENTATION"},
    ):
        assert parse(dicom_bytes(ramp(), **attributes)).header.is_for_processing
