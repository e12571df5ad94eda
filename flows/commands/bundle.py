"""``lapvqa bundle``: a run or model in one signed file, out of a closed network or into it."""

from __future__ import annotations

from pathlib import Path

from flows.commands import own_files, terminal
from lapvqa.errors import ConfigError
from lapvqa.lineage import bundle, ledger
from lapvqa.project import Project

_SHOWN = 16


def pack(
    project: Project, target: str | None, out: Path | None, *, predictions: bool, weights: bool
) -> int:
    """Write a bundle and say what is in it."""
    if target is None or out is None:
        raise ConfigError(
            "expected a run or model and --out, found only one of them",
            hint="such as `lapvqa bundle models/captioning --out model.zip`",
        )
    own_files.require(out, "--out", "a bundle", own_files.is_zip_with(*bundle.OUTSIDE))
    ledger.require_whole(project)
    packed = bundle.pack(project, target, out, predictions=predictions, weights=weights)
    console = terminal.console()
    console.print(
        f"wrote {out}: {terminal.counted(packed.files, 'file')}, {terminal.size(packed.bytes)}, "
        f"bundle {packed.digest[:_SHOWN]}",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    for path in packed.absent:
        console.print(f"  without {path}: it is not here as that run left it", markup=False)
    console.print(
        f"  signed by key {packed.key[:_SHOWN]}: give ledger/signing.pub to the receiver by "
        "another way",
        soft_wrap=True,
    )
    if packed.contaminated:
        console.print(
            "  contaminated: an erasure has marked a training that it stands on; its card says so",
            soft_wrap=True,
        )
    if predictions:
        console.print(
            "  it holds patients' keys, and of report generation texts of reports, because "
            "predictions do",
            soft_wrap=True,
        )
    return 0


def bring_in(project: Project, file: Path, *, key: Path | None) -> int:
    """Check a bundle, keep it under imports/, and say from whom it comes."""
    if key is not None and not key.is_file():
        raise ConfigError(
            f"--key: expected a file at {key}, found none",
            hint="ask the sender for ledger/signing.pub of their project",
        )
    arrived = bundle.unpack(project, file, public_key=key.read_bytes() if key else None)
    console = terminal.console()
    folder = project.imported(arrived.digest).relative_to(project.root)
    if arrived.new:
        console.print(
            f"brought in {terminal.counted(arrived.files, 'file')} of run "
            f"{arrived.target[:_SHOWN]}: {folder}/"
        )
    elif arrived.repaired:
        console.print(
            f"known already, and damaged since ({arrived.repaired}): {folder}/ was made anew",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    else:
        console.print(f"known already: {folder}/; nothing changed")
    if key is None:
        console.print(
            f"  whole, and signed by key {arrived.key[:_SHOWN]}, which the bundle itself brought: "
            "ask the sender for its digits, or give their signing.pub by --key",
            soft_wrap=True,
        )
    else:
        console.print(f"  whole, and signed by the key of {key.name}", soft_wrap=True)
    return 0
