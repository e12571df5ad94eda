"""What becomes of every DICOM image that pydicom ships, and of 10,000 damaged files.

    python benchmarks/dicom_table.py [NUMBER]

Each file goes through the pool of worker processes; what comes out is compared with what pydicom's
decoders, windowing by pydicom and averaging by a matrix give. Writes results/dicom-files.json and
docs/dicom-files.md.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "dicom"))

from survey import (  # noqa: E402 - the tests' second opinion
    SECONDS,
    Outcome,
    as_radiograph,
    described,
    mutations,
    shipped,
    survey,
)

NUMBER = 10_000
RESULT = HERE / "results" / "dicom-files.json"
PAGE = HERE.parent / "docs" / "dicom-files.md"
LIBRARIES = (
    "pydicom", "numpy", "pillow", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "python-gdcm",
)  # fmt: skip
# Compared file by file with the code before decision 0021.
RENDERED = (
    "Colour is shown as it is since [decision 0021](decisions/0021-eight-bits.md), and no longer",
    "stretched between percentiles. Of these files the pixels changed, and of no others:",
    "GDCMJ2K_TextGBR, SC_jpeg_no_color_transform, SC_jpeg_no_color_transform_2, SC_rgb_jpeg,",
    "SC_rgb_jpeg_app14_dcmd, SC_rgb_jpeg_dcmd, examples_rgb_color. MR_small_padded, with 128 zeros",
    "behind its pixels, is read.",
)


def outcomes(files: Iterable[tuple[str, bytes]]) -> list[Outcome]:
    """Return what became of each file, in order of name."""
    with tempfile.TemporaryDirectory() as folder:
        found = (
            replace(outcome, result=replace(outcome.result, pixels=None))
            for outcome in survey(files, Path(folder))
        )
        return sorted(found, key=lambda outcome: outcome.name)


def file_rows(files: Mapping[str, bytes]) -> list[dict[str, object]]:
    """Group the shipped files by what they are and what became of them."""
    as_they_are = outcomes(files.items())
    rewritten = outcomes((name, as_radiograph(data)) for name, data in files.items())
    groups: Counter[tuple[str, ...]] = Counter()
    for first, second in zip(as_they_are, rewritten, strict=True):
        groups[*described(files[first.name]), first.by_default, second.verdict] += 1
    names = ("syntax", "photometric", "bits", "voi", "as_it_is", "as_dx")
    return [{**dict(zip(names, group, strict=True)), "files": groups[group]}
            for group in sorted(groups)]  # fmt: skip


def damaged(number: int) -> dict[str, object]:
    """Count what became of ``number`` damaged files."""
    started = time.perf_counter()
    found = outcomes(mutations(range(number)))
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in found:
        kinds[outcome.name.split("; ")[2]][outcome.verdict] += 1
    shown = [outcome for outcome in found if outcome.answer is not None]
    return {
        "files": number,
        "outcomes": dict(Counter(outcome.verdict for outcome in found).most_common()),
        "by_kind": {kind: dict(kinds[kind].most_common()) for kind in sorted(kinds)},
        "stated": dict(Counter(o.stated for o in shown if o.verdict == "decoded, stated")),
        "pydicoms_decoders_disagree": sum(o.answer.is_disputed for o in shown if o.answer),
        "crashed": sorted(o.name for o in found if o.verdict == "decoder_crashed"),
        "wrong": sorted(o.name for o in found if o.verdict == "WRONG"),
        "longest_allowed_s": SECONDS,
        "seconds_with_the_comparison": round(time.perf_counter() - started, 1),
    }


def page(result: dict[str, object]) -> str:
    """Return the table as Markdown."""
    lines = [
        "# What becomes of a DICOM file",
        "",
        "Made by `python benchmarks/dicom_table.py`; do not edit. Every file goes through the pool",
        'of worker processes. "decoded" means: the stored image is within 2 of 255 greys,',
        "everywhere, of what pydicom's decoder and windowing and an average by matrices give. All",
        "else is the reason in rejects.parquet.",
        "",
        "## The images that pydicom ships",
        "",
        "Under the default parameters, and in the last column with DX written over the modality,",
        "colour and every part of the body accepted: most are CT or MR. companion: no image.",
        "",
        "| transfer syntax | photometric | bits | VOI | files | as it is | as DX |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["shipped"]:  # type: ignore[attr-defined]
        columns = ("syntax", "photometric", "bits", "voi", "files", "as_it_is", "as_dx")
        lines.append("| " + " | ".join(str(row[name]) for name in columns) + " |")
    lines += ["", *RENDERED]
    found: dict[str, object] = result["damaged"]  # type: ignore[assignment]
    lines += [
        "",
        f"## {found['files']} damaged files",
        "",
        "Bits flipped, ends cut, lengths and attributes overwritten, bytes removed, inserted,",
        "repeated and blanked, in files of every transfer syntax and grey transformation.",
        "",
        "| outcome | files |",
        "|---|---|",
    ]
    lines += [f"| {name} | {count} |" for name, count in found["outcomes"].items()]  # type: ignore[attr-defined]
    lines += [
        "",
        '"decoded, stated": pydicom shows something else, or nothing, and why is known:',
        "",
    ]
    lines += [f"- {count}: {why}" for why, count in found["stated"].items()]  # type: ignore[attr-defined]
    lines += [
        "",
        f"pydicom's own decoders differ over {found['pydicoms_decoders_disagree']} of the decoded:",
        "a compressed stream has no checksum, and what a damaged one means is the decoder's guess.",
        "The library asks one decoder for each syntax.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Look at all files, print, keep."""
    warnings.simplefilter("ignore")
    number = int(sys.argv[1]) if len(sys.argv) > 1 else NUMBER
    result: dict[str, object] = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {name: version(name) for name in LIBRARIES},
        "shipped": file_rows(shipped()),
        "damaged": damaged(number),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
