"""Files through the real pool, and beside each image that comes out what pydicom shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom.data
from independent import Answer, Oracle
from mutations import mutated
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from lapvqa.identity import Ids, Keyring
from lapvqa.ingest.one_file import Context, FileResult, Task, as_table
from lapvqa.ingest.pool import process_all
from lapvqa.ingest.verdicts import Verdicts, reject_unless_permitted
from lapvqa.params import IngestParams, LimitParams, SplitParams

DEFAULTS = IngestParams(split=SplitParams(validate=0.1, test=0.2))
IDS = Ids("image", "study", "patient")
SECONDS = 10.0

# Where the library shows an image and pydicom another or none, and is right to.
HTJ2K = "a damaged HTJ2K stream gives values beyond Bits Stored: both keep what they can of them"
UNSTATED = "a damaged file meta: its data set tells how it is written"
STATED = {
    "died": "one of pydicom's decoders, which the library does not use, ends its process",
    "NotImplementedError": "an unknown VR of the file meta's length, which is not needed",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one file; ``answer`` is None if it was rejected."""

    name: str
    result: FileResult
    answer: Answer | None

    @property
    def verdict(self) -> str:
        """decoded, the reason, or what is wrong."""
        if self.answer is None:
            return str(self.result.reason)
        if self.answer.agrees:
            return "decoded"
        return "decoded, stated" if self.stated else "WRONG"

    @property
    def by_default(self) -> str:
        """The same under the parameters' defaults, which ask for chest radiographs in grey."""
        verdicts = Verdicts(1)
        reject_unless_permitted(verdicts, as_table([self.result]), DEFAULTS)
        (reason,) = verdicts.onto(as_table([self.result]))["reason"].to_pylist()
        return str(reason) if self.answer and reason else self.verdict

    @property
    def stated(self) -> str:
        """Why pydicom shows something else, if that is known."""
        assert self.answer
        syntax = UID(str(self.result.transfer_syntax)).name
        if self.answer.differences and "High-Throughput" in syntax:
            return HTJ2K
        if not self.answer.differences and "no transfer syntax" in (self.result.note or ""):
            return UNSTATED
        return STATED.get(self.answer.error, "")


def survey(
    files: Iterable[tuple[str, bytes]], folder: Path, *, workers: int = 2
) -> Iterator[Outcome]:
    """Yield an outcome for each file; ``folder`` holds a few at a time."""
    context = Context(folder, Keyring(b"0123456789abcdef"), 0, LimitParams(seconds=SECONDS))
    oracle = Oracle()
    try:
        for result in process_all(_written(files, folder), context, workers=workers):
            path = folder / result.path
            answer = None
            if result.pixels is not None:
                answer = oracle.ask(path.read_bytes(), result.pixels)
            path.unlink()
            yield Outcome(result.path, result, answer)
    finally:
        oracle.close()


def _written(files: Iterable[tuple[str, bytes]], folder: Path) -> Iterator[list[Task]]:
    for name, data in files:
        (folder / name).write_bytes(data)
        status = (folder / name).stat()
        yield [Task(name, status.st_size, status.st_mtime_ns, IDS, is_picture=False)]


def mutations(numbers: Iterable[int]) -> Iterator[tuple[str, bytes]]:
    """Yield name (number, base, kind) and bytes of damaged files."""
    for number in numbers:
        base, kind, data = mutated(number)
        yield f"{number:05}; {base}; {kind}", data


def shipped() -> dict[str, bytes]:
    """Return every file with pixel data that pydicom's package brings along, by its path."""
    root = Path(pydicom.data.__file__).parent
    files = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".py" and _description(path.read_bytes()):
            files[path.relative_to(root).as_posix().replace("/", "; ")] = path.read_bytes()
    return files


def as_radiograph(data: bytes) -> bytes:
    """Return the file with DX in place of its modality, where that has two letters.

    Its SOP class becomes a private one, which leaves the modality to decide.
    """
    data = data.replace(b"1.2.840.10008.5.1.4.1.1.", b"1.2.999.10008.5.1.4.1.1.")
    for order in (("CS", b"\x02\0"), ("CS", b"\0\x02"), ("", b"\x02\0\0\0")):
        tag = b"\x08\0\x60\0" if order[1][0] else b"\0\x08\0\x60"
        place = data.find(tag + order[0].encode() + order[1])
        if place >= 0:
            place += len(tag + order[0].encode() + order[1])
            return data[:place] + b"DX" + data[place + 2 :]
    return data


def _description(data: bytes) -> Dataset | None:
    try:
        dataset = dcmread(BytesIO(data), force=True, stop_before_pixels=False)
        return dataset if "PixelData" in dataset else None
    except Exception:  # noqa: BLE001 - no DICOM
        return None


def described(data: bytes) -> tuple[str, str, str, str]:
    """Return transfer syntax, photometric interpretation, bits and VOI, as pydicom reads them."""
    dataset = _description(data)
    assert dataset is not None
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    sign = "signed" if dataset.get("PixelRepresentation") == 1 else ""
    bits = f"{dataset.get('BitsStored', '?')} of {dataset.get('BitsAllocated', '?')} {sign}".strip()
    if dataset.get("VOILUTSequence"):
        voi = "LUT"
    elif dataset.get("WindowWidth") not in (None, ""):
        voi = "window"
    else:
        voi = "none"
    name = UID(syntax).name if syntax else "none stated"
    return name, str(dataset.get("PhotometricInterpretation", "none stated")), bits, voi
