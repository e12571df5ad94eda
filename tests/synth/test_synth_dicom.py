"""The DICOM files: every encoding decodes to the picture that was taken."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from lapvqa.synth import mimic_copy
from lapvqa.synth.encode import SYNTAXES
from lapvqa.synth.radiograph import render


@pytest.fixture(scope="module")
def files(demo: Path) -> dict[str, pydicom.Dataset]:
    return {
        str(path.relative_to(demo)): pydicom.dcmread(path)
        for path in sorted(demo.glob("mimic-cxr/files/**/*.dcm"))
    }


def displayed(data: pydicom.Dataset) -> np.ndarray:
    """Modality, VOI, then polarity, as PS3.3 and PS3.4 order them; 0..1."""
    values = apply_modality_lut(data.pixel_array, data)
    if "VOILUTSequence" in data or "WindowCenter" in data:
        values = apply_voi_lut(values, data)
    values = values.astype(np.float64)
    if data.PhotometricInterpretation == "MONOCHROME1":
        values = -values
    low, high = values.min(), values.max()
    return (values - low) / (high - low)


def test_every_encoding_is_met(files):
    assert {data.file_meta.TransferSyntaxUID for data in files.values()} == set(SYNTAXES)
    assert {8, 10, 12, 14, 16} == {data.BitsStored for data in files.values()}
    inverted = [data.PhotometricInterpretation == "MONOCHROME1" for data in files.values()]
    assert 0.10 <= np.mean(inverted) <= 0.20
    windows = [data.get("WindowCenter") for data in files.values()]
    assert any(isinstance(window, pydicom.multival.MultiValue) for window in windows)
    assert any("VOILUTSequence" in data for data in files.values())
    assert any("WindowCenter" not in d and "VOILUTSequence" not in d for d in files.values())
    assert any("RescaleSlope" in data for data in files.values())


@pytest.mark.filterwarnings("ignore:Applying a VOI LUT on a float")
def test_files_show_the_picture_that_was_taken(demo, files):
    """Polarity, window, byte order and codec at once: air is dark, whatever the encoding."""
    made = json.loads((demo / "mimic-cxr" / "DEMO.json").read_text())
    plan = mimic_copy.plan(made["seed"], patients=made["patients"], studies=made["studies"])
    shots = mimic_copy.shots(plan)
    assert {shot.path for shot in shots} == set(files)
    seen = set()
    for shot in shots:
        encoding = shot.form.encoding
        kind = (encoding.syntax, encoding.inverted, encoding.voi)
        if kind in seen:
            continue
        seen.add(kind)
        shown = displayed(files[shot.path])
        picture = render(shot.exposure).film
        wanted = picture.values if encoding.voi == "none" else picture.displayed() / 255
        if encoding.voi == "none" and encoding.bits == 8:
            wanted = picture.displayed() / 255
        wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min())
        tolerance = 0.06 if encoding.voi == "lut" else 0.02
        assert np.abs(shown - wanted).mean() < tolerance, kind
    assert len(seen) > 20


def test_headers_are_those_of_an_archive(demo, files):
    meta = pd.read_csv(demo / "mimic-cxr" / "mimic-cxr-2.0.0-metadata.csv.gz").set_index("dicom_id")
    for path, data in files.items():
        row = meta.loc[Path(path).stem]
        assert data.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
        assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
        assert (data.Rows, data.Columns) == (row["Rows"], row["Columns"])
        assert data.ViewPosition == row["ViewPosition"]
        assert (data.PatientID, str(data.PatientName)) == (str(row["subject_id"]), "")
        assert data.StudyDate == str(row["StudyDate"])
        assert float(data.StudyTime) == pytest.approx(row["StudyTime"])
        shape = "INVERSE" if data.PhotometricInterpretation == "MONOCHROME1" else "IDENTITY"
        assert data.PresentationLUTShape == shape
        assert data.HighBit == data.BitsStored - 1
        assert data.pixel_array.max() < 2**data.BitsStored
        assert "InstanceCreationDate" not in data
    assert len({data.SOPInstanceUID for data in files.values()}) == len(files)
    studies = {data.StudyInstanceUID: data.StudyID for data in files.values()}
    assert len(set(studies.values())) == len(studies)


def test_vindr_headers_name_no_patient_and_no_view(demo):
    for path in demo.glob("vindr-cxr/*/*.dicom"):
        data = pydicom.dcmread(path)
        assert "PatientID" not in data
        assert "ViewPosition" not in data
        assert data.pixel_array.shape == (data.Rows, data.Columns)
