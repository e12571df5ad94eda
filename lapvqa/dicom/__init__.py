"""One file's bytes to one stored grey image: header and pixels from a single read.

Files, in the order in which data meets them:
    strangers.py    what a file is that is none of those that are read, for the words of an error
    reasons.py      codes of all rejects, with remedies; whatever a decoder raises becomes one
    header.py       the allow-list of attributes: nothing else is read
    objects.py      which kind of object: radiograph, other image, companion, raw
    views.py        from which side a chest was seen, by what the header has
    body_part.py    whether it shows a chest, by what the header has
    person.py       sex, and age in bands of ten years, by what the header has
    fallbacks.py    attributes that cannot be used, and what stands in for them
    parse.py        bytes to a header and the place of the pixel data; nothing is decoded
    pixels.py       pixel data to cells, and how values lie in them; one decoder a transfer syntax
    grayscale.py    Modality LUT, VOI LUT or window, MONOCHROME1: the grey of each value
    render.py       cells to the stored image; ``read_image`` is the whole way
    picture.py      one PNG or JPEG to the stored image, for archives that publish pictures
    self_test.py    decodes the tiny files in samples/, one of each transfer syntax

Contracts
    ``lapvqa.dicom.read_image`` is published: bytes in, ``DicomImage`` out, DicomError with a code
    of ``Reason`` if they are not a usable radiograph.

Pitfalls
    Exceptions of parsers and decoders may quote a patient's data: only their type is kept.
    ``render`` loads compiled kernels (half a second): a process that reads no image imports it
    nowhere at the top.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lapvqa.dicom.render import read_image as read_image


def __getattr__(name: str) -> Any:
    # By its name only: else all that imports one file of this package would depend on all of them.
    if name == "read_image":
        return import_module(f"{__name__}.render").read_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
