"""A plain tree of DICOM files: patient and study come from the DICOM header.

A study's folder is the deepest one that holds all its image files. Its report is, in this order,
1. ``<study folder>.txt`` beside the folder,
2. a .txt beside an image and named like it (IM1.dcm, IM1.txt),
3. the only .txt in the study's folder,
then 1 and 3 again for the folders above. A folder counts only if this study alone has images in
it: in a folder shared by several studies only rule 2 can tell whose report it is.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lapvqa.dicom.layouts import loose
from lapvqa.dicom.layouts.contract import Ids, Listed, ReportText

REPORT_SUFFIX = ".txt"


class TreeArchive:
    """Any folder of DICOM files, with or without .txt reports."""

    name = "tree"
    looked_for = (
        "STUDY_FOLDER.txt, a .txt named like an image, or one .txt in a folder of one study"
    )
    has_split = False

    def __init__(self, folder: Path, paths: Sequence[str], images: Sequence[str]) -> None:
        self._folder = folder
        self.images = images
        self.reports: Sequence[str] = [
            path for path in paths if path.lower().endswith(REPORT_SUFFIX)
        ]
        self._reports_in: dict[str, list[str]] = defaultdict(list)
        for path in self.reports:
            self._reports_in[posixpath.dirname(path)].append(path)

    def ids(self, path: str) -> Ids:
        """Return no ids: the header has them."""
        return Ids()

    def listed(self, path: str) -> Listed:
        """Return nothing: a tree has no tables."""
        return Listed()

    def labels(self) -> Iterable[tuple[str, list[int | None]]]:
        """Return no labels: a tree has no tables."""
        return ()

    def match_reports(
        self, studies: Mapping[str, Sequence[str]], copies: Mapping[str, Sequence[str]]
    ) -> dict[str, str]:
        """Match by the rules above, studies in order of their first image's path."""
        own_folders = _folders_of_one_study([*studies.items(), *copies.items()])
        free = set(self.reports)
        matches: dict[str, str] = {}
        for study, images in sorted(studies.items(), key=lambda item: min(item[1])):
            candidates = self._candidates(study, images, own_folders)
            report = next((path for path in candidates if path in free), None)
            if report is not None:
                matches[study] = report
                free.discard(report)
        return matches

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time."""
        return loose.stamp(self._folder / path)

    def read_report(self, path: str) -> ReportText:
        """Read a text file."""
        return loose.decode(loose.read(self._folder / path))

    def _candidates(
        self, study: str, images: Sequence[str], own_folders: Mapping[str, str | None]
    ) -> Iterator[str]:
        folder = posixpath.commonpath([posixpath.dirname(path) for path in images])
        own = [above for above in _upwards(folder) if own_folders[above] == study]
        if own:
            yield own[0] + REPORT_SUFFIX
        for path in sorted(images):
            yield posixpath.splitext(path)[0] + REPORT_SUFFIX
        for above in own:
            yield above + REPORT_SUFFIX
            if len(self._reports_in.get(above, [])) == 1:
                yield self._reports_in[above][0]


def _folders_of_one_study(
    studies: Iterable[tuple[str, Sequence[str]]],
) -> dict[str, str | None]:
    """Return for each folder with images at any depth its study, None if there are several."""
    owner: dict[str, str | None] = {}
    for study, images in studies:
        for path in images:
            for folder in _upwards(posixpath.dirname(path)):
                owner[folder] = study if owner.get(folder, study) == study else None
    return owner


def _upwards(folder: str) -> Iterator[str]:
    """Yield the folder and those above it, without the archive's root."""
    while folder:
        yield folder
        folder = posixpath.dirname(folder)
