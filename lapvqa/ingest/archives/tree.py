"""A plain tree of DICOM files: patient and study come from the DICOM header.

A study's folder is the deepest one that holds all its image files. Its report is, in this order,
1. ``<Study Instance UID>.txt`` anywhere in the tree,
2. ``<study folder>.txt`` beside the folder,
3. a .txt beside an image and named like it (IM1.dcm, IM1.txt),
4. the only .txt in the study's folder,
then 2 and 4 again for the folders above. A folder counts only if this study alone has images in
it: in a folder shared by several studies only rules 1 and 3 can tell whose report it is.

Accession Number, by which hospitals name reports too, is not among the attributes that are read
(``lapvqa.dicom.header``). Pictures (.png, .jpg) are not images here: nothing names their study.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from lapvqa.identity import Ids
from lapvqa.ingest.archives.names import place
from lapvqa.ingest.archives.protocol import Listed, ReportText
from lapvqa.ingest.archives.report_files import decode_report, read_loose, stamp_of

REPORT_SUFFIX = ".txt"
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")


class TreeArchive:
    """Any folder of DICOM files, with or without .txt reports."""

    name = "tree"
    looked_for = (
        "STUDY_INSTANCE_UID.txt, STUDY_FOLDER.txt, a .txt named like an image, or one .txt in a "
        "folder of one study"
    )
    has_split = False
    tables: Sequence[str] = ()
    missing: Mapping[str, int] = MappingProxyType({})

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
        self,
        studies: Mapping[str, Sequence[str]],
        copies: Mapping[str, Sequence[str]],
        *,
        study_key: Callable[[str], str] | None = None,
    ) -> dict[str, str]:
        """Match by the rules above, studies in order of their first image's path."""
        own_folders = _folders_of_one_study([*studies.items(), *copies.items()])
        matches = self._named_by_uid(studies, study_key) if study_key else {}
        free = set(self.reports) - set(matches.values())
        for study, images in sorted(studies.items(), key=lambda item: min(item[1])):
            if study in matches:
                continue
            candidates = self._candidates(study, images, own_folders)
            report = next((path for path in candidates if path in free), None)
            if report is not None:
                matches[study] = report
                free.discard(report)
        return matches

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time."""
        return stamp_of(place(self._folder, path))

    def read_report(self, path: str) -> ReportText:
        """Read a text file."""
        return decode_report(read_loose(place(self._folder, path)))

    def _named_by_uid(
        self, studies: Mapping[str, Sequence[str]], study_key: Callable[[str], str]
    ) -> dict[str, str]:
        matches: dict[str, str] = {}
        for path in self.reports:
            stem = posixpath.basename(path)[: -len(REPORT_SUFFIX)]
            if _UID.fullmatch(stem) and (key := study_key(stem)) in studies:
                matches.setdefault(key, path)
        return matches

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
