from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import pytest
from made_dicom import bytes_of, dataset_of, dicom_bytes, ramp
from pydicom import Dataset, dcmread
from pydicom import uid as uids

from lapvqa.dicom.header import yes_or_no
from lapvqa.dicom.parse import parse
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError


def test_terms_are_yes_and_no_and_nothing_else_leaves_the_file() -> None:
    assert [yes_or_no(text) for text in ("YES", "no ", "Canary", "")] == ["yes", "no", "", ""]


@pytest.mark.parametrize("syntax", [uids.ImplicitVRLittleEndian, uids.ExplicitVRBigEndian])
def test_facts_are_read_but_not_judged(syntax: uids.UID) -> None:
    stated = dicom_bytes(
        ramp(),
        syntax=syntax,
        BodyPartExamined="KNEE",
        BurnedInAnnotation="YES",
        PatientIdentityRemoved="NO",
    )
    header = parse(stated).header
    assert (header.body_part, header.burned_in, header.identity_removed) == ("other", "yes", "no")
    header = parse(dicom_bytes(ramp(), syntax=syntax)).header
    assert (header.body_part, header.burned_in, header.identity_removed) == ("", "", "")


GUESSES: dict[str, tuple[Reason, Callable[[Dataset], object]]] = {
    "sign unknown": (Reason.BAD_HEADER, lambda d: d.__delattr__("PixelRepresentation")),
    "sign of 2": (Reason.BAD_HEADER, lambda d: setattr(d, "PixelRepresentation", 2)),
    "grey of three": (Reason.BAD_HEADER, lambda d: setattr(d, "SamplesPerPixel", 3)),
}


@pytest.mark.parametrize("name", GUESSES)
def test_what_a_pixel_means_is_not_guessed(name: str) -> None:
    reason, change = GUESSES[name]
    dataset = dataset_of(ramp())
    parse(bytes_of(dataset))
    change(dataset)
    with pytest.raises(DicomError) as caught:
        parse(bytes_of(dataset))
    assert caught.value.reason == reason


def test_compressed_pixel_data_is_as_long_as_its_items() -> None:
    dataset = dataset_of(ramp())
    dataset.compress(uids.RLELossless)
    data = bytes_of(dataset)
    place = data.rindex(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 8
    size = len(parse(data).pixel_data)
    assert place + 4 + size == len(data)
    with_length = data[:place] + size.to_bytes(4, "little") + data[place + 4 :]
    assert parse(with_length).pixel_data == parse(data).pixel_data
    for wrong in (0, size - 2, size + 2):
        with pytest.raises(DicomError) as caught:
            parse(data[:place] + wrong.to_bytes(4, "little") + data[place + 4 :])
        assert caught.value.reason == Reason.WRONG_LENGTH


def test_a_data_set_written_in_implicit_vr_against_its_file_meta_is_read() -> None:
    plain = dcmread(BytesIO(bytes_of(dataset_of(ramp(), syntax=uids.ImplicitVRLittleEndian))))
    data = bytes_of(plain)
    assert data.count(b"1.2.840.10008.1.2\0") == 1
    claimed = data.replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0", 1)
    # The value became two bytes longer: its own length, and that of the group.
    place = claimed.index(b"1.2.840.10008.1.2.1\0") - 2
    claimed = claimed[:place] + b"\x14\x00" + claimed[place + 2 :]
    group = int.from_bytes(claimed[140:144], "little") + 2
    claimed = claimed[:140] + group.to_bytes(4, "little") + claimed[144:]
    found = parse(claimed)
    assert bytes(found.pixel_data) == ramp().tobytes()
