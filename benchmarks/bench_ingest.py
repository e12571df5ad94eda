"""One uncompressed 3056 x 2544 file to a stored 384 x 384 image, beside the usual recipe.

Peer: pydicom, min-max, Pillow bicubic to 384 x 384, PNG. The outputs differ by design (ours keeps
the aspect ratio, honours the window and averages areas); what is compared is the work of a file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from lapvqa.dicom.read import read_image

ROWS, COLUMNS, ALTERNATIONS = 3056, 2544, 15
RESULT = Path(__file__).parent / "results" / "ingest-cpu.json"


def make_file() -> bytes:
    """Return a 12-bit radiograph-like DICOM file, 15.5 MB."""
    x, y = np.meshgrid(np.linspace(-1, 1, COLUMNS), np.linspace(-1, 1, ROWS))
    noise = np.random.default_rng(0).normal(0, 60, (ROWS, COLUMNS))
    pixels = np.clip(2000 + 1500 * np.cos(3 * x) * np.cos(2 * y) + noise, 0, 4095)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["bench"])
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PhotometricInterpretation = "DX", "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = pixels.astype("<u2").tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def ours(data: bytes) -> None:
    """Read, window, fit."""
    read_image(data)


def ours_with_digest(data: bytes) -> None:
    """The same, and the file's sha256."""
    hashlib.sha256(data).hexdigest()
    read_image(data)


def peer(data: bytes) -> None:
    """The usual recipe."""
    pixels = pydicom.dcmread(io.BytesIO(data)).pixel_array.astype("f4")
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    small = Image.fromarray(pixels.astype("u1")).resize((384, 384), Image.Resampling.BICUBIC)
    small.save(io.BytesIO(), "PNG")


def seconds(function: object, data: bytes) -> float:
    """Return the wall time of one call."""
    started = time.perf_counter()
    function(data)  # type: ignore[operator]
    return time.perf_counter() - started


def main() -> None:
    """Alternate, print, keep."""
    cv2.setNumThreads(1)
    data = make_file()
    contenders = (ours, ours_with_digest, peer)
    times: dict[str, list[float]] = {function.__name__: [] for function in contenders}
    for _ in range(ALTERNATIONS):
        for function in contenders:
            times[function.__name__].append(seconds(function, data))
    result = {
        "file": f"{ROWS} x {COLUMNS}, 12 in 16 bits, explicit little endian, in memory",
        "alternations": ALTERNATIONS,
        "load_average": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
        "cpu": next(
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "versions": {name: version(name) for name in ("pydicom", "numpy", "pillow")},
        "median_ms": {
            name: round(1e3 * statistics.median(values), 1) for name, values in times.items()
        },
        "ratio_to_peer": {},
    }
    for name in ("ours", "ours_with_digest"):
        ratios = [b / a for a, b in zip(times[name], times["peer"], strict=True)]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        result["ratio_to_peer"][name] = [round(one, 2) for one in (middle, low, high)]
        print(f"{name}: {middle:.2f}x the peer's speed [{low:.2f}, {high:.2f}]")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["median_ms"]))


if __name__ == "__main__":
    main()
