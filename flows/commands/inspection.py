"""``lapvqa inspect``: what the pipeline would make of a file, a folder or a report.

File names are shown, and on request the words that would be learnt: on this terminal only, for they
may name a patient. Everything else that is printed names nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands import own_files, terminal
from lapvqa.errors import SourceError, is_there, nothing_at
from lapvqa.project import Project

if TYPE_CHECKING:
    from lapvqa.dicom.reasons import Reason
    from lapvqa.preview import FilePreview, Preview, ReportPreview

_LISTED = 12
"""Files or reports up to which each is described; beyond it they are counted."""
_PICTURE = (
    "a picture by itself, which names no study and no patient: a run reads pictures of "
    "MIMIC-CXR-JPG and Open-i alone, whose paths do; `lapvqa embed`, `caption` and `ask` take it "
    "as it is"
)
_MARK = b"lapvqa inspect"
"""Which program wrote a picture: a line of text within the PNG."""


def execute(
    project: Project, paths: list[Path], *, png: Path | None, text: bool, limit: int
) -> int:
    """Look at each path and print what was seen; 0 also where everything would be rejected.

    A path that is no archive, report or image is an error, and the others are looked at all the
    same; the code returned is then that of wrong use.
    """
    there = [path for path in paths if is_there(path)]
    code = 0
    for path in paths:
        if path not in there:
            error = nothing_at(path, "a file or folder")
            terminal.show_error(error)
            code = error.exit_code
    if not there:
        return code  # before the decoders are imported: they take seconds
    from lapvqa.ingest.archives.names import shown
    from lapvqa.machine import load_machine
    from lapvqa.params import load_params
    from lapvqa.preview import Settings, look
    from lapvqa.text.languages import load_languages

    if png is not None:
        own_files.require_writable(png, "--png")
    settings = Settings(
        load_params(project.params), load_machine(project), load_languages(project.root)
    )
    console = terminal.console()
    for path in there:
        try:
            preview = look(path, settings, limit=limit)
        except SourceError as error:
            terminal.show_error(error)
            code = error.exit_code
            continue
        within = Path(shown(str(path if path.is_dir() else path.parent)))
        max_length = settings.params.tokens.max_length
        for line in _lines(preview, within, text=text, max_length=max_length):
            console.print(line, markup=False, soft_wrap=True)
        if png is not None:
            number = _write_pictures(preview.files, png)
            pictures = terminal.counted(number, "picture")
            whose = "it" if number == 1 else "they"
            console.print(f"{pictures} as {whose} would be stored, in {png}", markup=False)
    return code


def _lines(preview: Preview, within: Path, *, text: bool, max_length: int) -> Iterator[str]:
    from lapvqa.dicom import strangers
    from lapvqa.ingest.archives import kinds
    from lapvqa.ingest.archives.members import read_head
    from lapvqa.ingest.archives.names import own_name

    if preview.layout:
        looked_at = terminal.counted(len(preview.files), "image file")
        studies = terminal.counted(preview.num_studies, "study")
        reports = terminal.counted(len(preview.reports), "report")
        yield f"layout {preview.layout}: {looked_at} looked at, {studies}, {reports}"
    if preview.not_looked_at:
        beyond = f"{preview.not_looked_at} more were not looked at (--limit)"
        yield beyond + ("; their reports count as without study" if preview.layout else "")
    yield from _file_lines(preview.files, within)
    yield from preview.notes
    yield from _report_lines(preview, within, text=text, max_length=max_length)
    if preview.others and not preview.layout:
        for path, kind in preview.others.items():
            name = str(within / path)
            what = strangers.describe(read_head(Path(own_name(name)), kinds.HEAD_BYTES))
            yield f"{name}: not read ({kind}); it is {what}"
    elif preview.others:
        yield f"other files: {_counted(preview.others.values())}"


def _file_lines(files: Sequence[FilePreview], within: Path) -> Iterator[str]:
    if len(files) <= _LISTED:
        for file in files:
            yield from _file(file, within / file.result.path)
        return
    taken = [file.result for file in files if file.reason is None]
    yield f"files: {len(taken)} of {len(files)} would be taken"
    yield f"  views: {_counted(image.view or 'unknown' for image in taken)}"
    yield f"  intensity by: {_counted(image.voi for image in taken)}"
    companions = [f.result.companion for f in files if f.result.companion]
    if companions:
        yield f"  companions, which are no images: {_counted(companions)}"
    rejects = [
        (file.reason, file.result.detail or "", file.result.path)
        for file in files
        if file.reason and not file.result.companion
    ]
    for line in _reject_lines(rejects, within, "rejected"):
        yield f"  {line}"


def _file(file: FilePreview, name: Path) -> Iterator[str]:
    reason, result = file.reason, file.result
    if result.companion:
        yield f"{name}: a {result.companion.replace('_', ' ')}, no image and no reject"
        return
    if reason is not None:
        yield f"{name}: rejected, {reason.value}; {result.detail}"
        yield f"  what to do: {reason.remedy}"
    else:
        yield f"{name}: " + (f"taken, study {file.study}" if file.study else _PICTURE)
    if result.transfer_syntax is not None:
        view = f"view {result.view} by {result.view_source}" if result.view else "view unknown"
        yield (
            f"  header: {result.modality or 'no modality'}, {view}, body part "
            f"{result.body_part or 'not stated'}, {result.photometric}, {result.bits_stored} bits"
        )
    if result.native_rows is not None and result.scale is not None:
        yield (
            f"  image: {result.native_rows} x {result.native_cols}, times {result.scale:.4f} into "
            f"the stored 384 x 384; intensity by {result.voi}"
        )
    if result.note:
        yield f"  note: {result.note}"


def _report_lines(preview: Preview, within: Path, *, text: bool, max_length: int) -> Iterator[str]:
    reports = preview.reports
    if reports and len(reports) <= _LISTED:
        for report in reports:
            yield from _report(report, within, text=text, max_length=max_length)
    elif reports:
        yield f"reports: {len(reports)} would be taken"
        yield f"  learnt from: {_counted(str(report.target.verdict) for report in reports)}"
        yield f"  languages: {_counted(report.language for report in reports)}"
        yield f"  encodings: {_counted(report.encoding for report in reports)}"
        lengths = sorted(report.num_tokens for report in reports)
        cut = sum(report.is_cut for report in reports)
        yield (
            f"  tokens: median {lengths[len(lengths) // 2]}, longest {lengths[-1]}; {cut} would be "
            f"cut to tokens.max_length = {max_length}"
        )
        flags = [kind for report in reports for kind in set(report.flags)]
        if flags:
            yield f"  text that may identify somebody, in reports: {_counted(flags)}"
    if preview.rules:
        rules = ", ".join(f"{rule}: {number}" for rule, number in preview.rules.items())
        yield f"reports matched by {rules}"
    rejected = [(reason, detail, path) for path, reason, detail in preview.rejected_reports]
    yield from _reject_lines(rejected, within, "reports rejected")


def _report(report: ReportPreview, within: Path, *, text: bool, max_length: int) -> Iterator[str]:
    target = report.target
    whose = f", of study {report.study}" if report.study else ""
    read_as = f"{report.form} in {report.encoding}, {report.language}"
    yield f"{within / report.path}: a report{whose}, {read_as}"
    yield (
        f"  learnt from it: {target.verdict.replace('_', ' ')}"
        + (f", {report.num_tokens} tokens" if target.verdict.has_text else "")
        + (f", cut to tokens.max_length = {max_length}" if report.is_cut else "")
    )
    for span in target.spans:
        yield f"  section {span.name}: characters {span.start} to {span.end}"
    if target.verdict.has_text:
        yield f"  names a side of the body: {'yes' if report.is_sided else 'no'}"
    if report.flags:
        yield f"  text that may identify somebody: {_counted(report.flags)}"
    if text and target.verdict.has_text:
        yield f"  text: {target.text}"


def _reject_lines(
    rejects: Sequence[tuple[Reason, str, str]], within: Path, what: str
) -> Iterator[str]:
    """Count rejects (reason, detail, path) by reason; a detail is of all only where they agree."""
    for reason, number in Counter(reason for reason, _, _ in rejects).most_common():
        own = [(detail, path) for each, detail, path in rejects if each is reason]
        detail, path = own[0]
        agree = all(other == detail for other, _ in own)
        of_all, of_one = (f"; {detail}", "") if agree else ("", f": {detail}")
        yield f"{what} {number}: {reason.value}{of_all}"
        yield f"  such as {within / path}{of_one}; what to do: {reason.remedy}"


def _counted(names: Iterable[object]) -> str:
    counts = Counter(str(name) for name in names).most_common()
    return ", ".join(f"{name} {number}" for name, number in counts) or "none"


def _write_pictures(files: Sequence[FilePreview], folder: Path) -> int:
    """Write each stored image as PNG, named like its file."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    folder.mkdir(parents=True, exist_ok=True)
    stored = [(file, file.pixels) for file in files if file.pixels is not None]
    names = Counter(Path(file.result.path).name for file, _ in stored)
    pictures = {}
    for number, (file, pixels) in enumerate(stored, start=1):
        name = Path(file.result.path).name
        name = name if names[name] == 1 else f"{number}-{name}"
        pictures[folder / f"{name}.png"] = Image.fromarray(pixels)
    for path in pictures:
        own_files.require(path, "--png", "a picture of an earlier look", own_files.holds(_MARK))
    made_by = PngInfo()
    made_by.add_text("Software", _MARK.decode())
    for path, picture in pictures.items():
        picture.save(path, pnginfo=made_by)
    return len(pictures)
