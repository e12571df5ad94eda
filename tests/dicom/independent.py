"""A second way from a file's bytes to the stored image: plain pydicom and matrices of NumPy.

It shares no code with the library: neither parser nor decoding, windowing, geometry or averaging.
Slow and simple; what it returns is not rounded. Run as a program it answers files at standard
input, for some decoders end the process that asks them (``Oracle``).
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
)

CONTENT, STORED = 378, 384
GUESSED = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
TOLERANCE = 2.0
Greys = NDArray[np.float64]


def images(data: bytes) -> Iterator[Greys]:
    """Yield the stored image [384, 384], 0 .. 255, by each decoder that pydicom has for it."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(BytesIO(data), force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = GUESSED[dataset.original_encoding]
        syntax = dataset.file_meta.TransferSyntaxUID
        decoder = get_decoder(syntax)
        if syntax == JPEGExtended12Bit and dataset.BitsStored > 8:
            dataset = by_dcmtk(dataset)
            decoder = get_decoder(ExplicitVRLittleEndian)
        # pydicom does not look at High Bit: it is told of the bits below the value, too.
        is_grey = dataset.PhotometricInterpretation.startswith("MONOCHROME")
        below = max(0, dataset.get("HighBit", 0) + 1 - dataset.BitsStored) if is_grey else 0
        dataset.BitsStored += below
        # A list of none stands for the native syntaxes, which need no plugin.
        for plugin in sorted(decoder.available_plugins) or [""]:
            try:
                pixels, facts = decoder.as_array(
                    dataset, raw="YBR" in dataset.PhotometricInterpretation, decoding_plugin=plugin
                )
                yield placed(display(dataset, pixels >> below, facts))
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # noqa: BLE001 - a panic in Rust; another plugin may do it
                continue


def by_dcmtk(dataset: Dataset) -> Dataset:
    """Decompress with dcmtk; pydicom has no decoder for JPEG of 12 bits."""
    image = Dataset()
    image.file_meta = dataset.file_meta
    for tag in dataset.keys():  # noqa: SIM118 - the elements would all be converted
        if tag.group in (0x0008, 0x0028, 0x7FE0):  # dcmtk minds damage elsewhere
            image.add(dataset[tag])
    with tempfile.TemporaryDirectory() as folder:
        image.save_as(Path(folder) / "in.dcm")
        command = ["dcmdjpeg", f"{folder}/in.dcm", f"{folder}/out.dcm"]
        subprocess.run(command, check=True, capture_output=True)
        return dcmread(BytesIO((Path(folder) / "out.dcm").read_bytes()))


def display(dataset: Dataset, pixels: NDArray[Any], facts: dict[str, Any]) -> Greys:
    """Return the grey of each pixel in [0, 1]."""
    if pixels.ndim == 3:
        is_rgb = facts["photometric_interpretation"] == "RGB"
        # The luma is a byte again (PS3.3 C.7.6.3.1.2).
        luma = np.rint(pixels @ np.array([0.299, 0.587, 0.114])) if is_rgb else pixels[..., 0]
        return luma / 255
    rescale = [number(dataset, name) for name in ("RescaleSlope", "RescaleIntercept")]
    if not dataset.get("ModalityLUTSequence") and None in rescale:
        rescale, values = [1, 0], pixels.astype(np.float64)
    else:
        values = np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float64)
    shown = np.ones(pixels.shape, bool)
    padding = dataset.get("PixelPaddingValue")
    if padding is not None:
        limit = dataset.get("PixelPaddingRangeLimit")
        kind = np.dtype(
            f"{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}"
        )
        ends = np.array([padding, padding if limit is None else limit]).astype(kind)
        low, high = sorted(ends.astype(int))
        shown = (pixels < low) | (pixels > high)
    if dataset.get("VOILUTSequence"):
        item = dataset.VOILUTSequence[0]
        looked_up = apply_voi_lut(values.astype(np.int64), dataset).astype(np.float64)
        table = np.frombuffer(item.LUTData, "<u2") if isinstance(item.LUTData, bytes) else None
        largest = max(item.LUTData) if table is None else int(table.max())
        announced = 2 ** item.LUTDescriptor[2] - 1
        while announced // 2 >= largest > 0:
            announced //= 2
        grey = looked_up / max(announced, largest)
    elif window_is_usable(dataset):
        grey = windowed(dataset, values)
    elif (
        (dataset.BitsStored, dataset.BitsAllocated, dataset.PixelRepresentation) == (8, 8, 0)
        and rescale == [1, 0]
        and not dataset.get("ModalityLUTSequence")
    ):
        grey = values / 255
    else:
        grey = between_percentiles(values, shown)
    shape = str(dataset.get("PresentationLUTShape", ""))
    if dataset.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE":
        grey = 1 - grey
    return np.where(shown, grey, 0)


def window_is_usable(dataset: Dataset) -> bool:
    center, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if center is None or width is None or function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return False
    return width >= 1 if function == "LINEAR" else width > 0


def number(dataset: Dataset, name: str) -> float | None:
    """Return the attribute's first number, None if that is none."""
    try:
        value = float(np.atleast_1d(dataset.get(name))[0])
    except (TypeError, ValueError, IndexError):
        return None
    return value if np.isfinite(value) else None


def windowed(dataset: Dataset, values: Greys) -> Greys:
    """Apply pydicom's window, whose result it stretches over all values that the file can hold."""
    plain = Dataset()
    for name in ("WindowCenter", "WindowWidth", "VOILUTFunction", "PhotometricInterpretation"):
        if name in dataset:
            setattr(plain, name, dataset[name].value)
    plain.BitsStored, plain.PixelRepresentation = 16, 0  # so that black is 0 and white 65535
    return np.asarray(apply_voi_lut(values, plain), dtype=np.float64) / 65535


def between_percentiles(values: Greys, shown: NDArray[np.bool_]) -> Greys:
    step = max(1, min(values.shape) // 512)
    sample = values[::step, ::step][shown[::step, ::step]]
    low, high = np.percentile(sample, [0.5, 99.5])
    if low == high:
        low, high = sample.min(), sample.max()
    return np.clip((values - low) / (high - low), 0, 1)


def placed(grey: Greys) -> Greys:
    """Fit into the stored square: the longer side 378, the shorter one centred."""
    rows, cols = grey.shape
    scale = CONTENT / max(rows, cols)
    height, width = round(rows * scale), round(cols * scale)
    weights = (areas if scale < 1 else lines)(rows, height, scale)
    content = weights @ grey @ (areas if scale < 1 else lines)(cols, width, scale).T
    stored = np.zeros((STORED, STORED))
    top, left = (CONTENT - height) // 2, (CONTENT - width) // 2
    stored[top : top + height, left : left + width] = content * 255
    return stored


def areas(native: int, stored: int, scale: float) -> Greys:
    """Return the share [stored, native] of each native pixel in each stored one."""
    ends = np.arange(stored + 1) / scale
    begin = np.maximum(ends[:-1, None], np.arange(native))
    end = np.minimum(ends[1:, None], np.arange(native) + 1)
    overlap = np.clip(end - begin, 0, None)
    return overlap / overlap.sum(axis=1, keepdims=True)


def lines(native: int, stored: int, scale: float) -> Greys:
    """Return the weights [stored, native] of linear interpolation between pixel centres."""
    place = np.clip((np.arange(stored) + 0.5) / scale - 0.5, 0, native - 1)
    return np.clip(1 - np.abs(place[:, None] - np.arange(native)), 0, None)


@dataclass(frozen=True)
class Answer:
    """How far a stored image is from those of pydicom's decoders."""

    differences: tuple[float, ...]
    """In greys of 255, the largest in the image; empty if pydicom shows none."""
    error: str
    """What pydicom raised where it cannot read the file; "died" if it took its process along."""

    @property
    def agrees(self) -> bool:
        """Whether one of the decoders shows the same image."""
        return bool(self.differences) and min(self.differences) <= TOLERANCE

    @property
    def is_disputed(self) -> bool:
        """Whether pydicom's decoders disagree among themselves, as they do over damaged streams."""
        return self.agrees and max(self.differences) > TOLERANCE


class Oracle:
    """Answers in a process of its own, which is started again if a decoder ends it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, data: bytes, stored: NDArray[np.uint8]) -> Answer:
        """Compare ``stored`` [384, 384] with what pydicom makes of ``data``."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert self._process.stdin
        assert self._process.stdout
        try:
            pickle.dump((data, stored), self._process.stdin)
            self._process.stdin.flush()
            return Answer(*pickle.load(self._process.stdout))
        except (EOFError, BrokenPipeError):
            self.close()
            return Answer((), "died")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders print
    while True:
        try:
            data, stored = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        differences, error = [], ""
        try:
            for image in images(data):
                differences.append(float(np.abs(image - stored).max()))
        except Exception as caught:  # noqa: BLE001 - not readable at all
            error = type(caught).__name__
        pickle.dump((tuple(differences), error), answers)
        answers.flush()


if __name__ == "__main__":
    main()
