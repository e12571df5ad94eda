"""Decide which files are taken and why the others are rejected, and the split of each patient.

Rules run in a fixed order over the files in order of path, so of two copies the first by path
is taken, whichever was read first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lapvqa.dicom.header import COLOUR
from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.views import clean_view
from lapvqa.errors import SplitLeakError
from lapvqa.ingest.archives.protocol import Archive, Listed
from lapvqa.ingest.one_file import FileResult
from lapvqa.params import IngestParams, SplitParams
from lapvqa.schemas import FRONTAL_VIEWS

Views = Literal["any", "frontal"]

# Values of (0012,0062) that each setting of ingest.deid.identity_removed accepts; "": absent.
_REMOVED: dict[str, set[str | None]] = {
    "accept": {"yes", "no", "", None},
    "unless_no": {"yes", "", None},
    "require": {"yes"},
}


_FOUND = {"none": "none: neither Modality nor SOP Class says that it is a radiograph"}


@dataclass(slots=True)
class Candidate:
    """One image file of the archive, all that is known of it, and the verdict."""

    result: FileResult
    listed: Listed
    reason: Reason | None = None
    """None: the file is taken."""
    detail: str = ""
    split: str = ""
    """Split of its patient, whether the file is taken or not; empty if unknown."""
    view_decided: tuple[str, str | None] | None = None
    """View and rule that ``judge`` gave it in place of what table and header say."""

    @property
    def view(self) -> str:
        """View by the archive's table, else by the header; empty if unknown."""
        return self._viewed[0]

    @property
    def view_source(self) -> str | None:
        """The rule that told the view: ``lapvqa.dicom.views``."""
        return self._viewed[1]

    @property
    def _viewed(self) -> tuple[str, str | None]:
        if self.view_decided is not None:
            return self.view_decided
        if listed := clean_view(self.listed.view or ""):
            return listed, "table"
        return self.result.view or "", self.result.view_source

    def reject(self, reason: Reason, detail: str) -> None:
        """Reject the file."""
        self.reason, self.detail = reason, detail

    def reject_unless_frontal(self) -> bool:
        """Reject the file unless it is known to be frontal; say whether it was rejected."""
        if not self.view:
            self.reject(Reason.VIEW_UNKNOWN, "expected a frontal view, found none stated")
        elif self.view not in FRONTAL_VIEWS:
            self.reject(Reason.LATERAL_NOT_ASKED, f"expected a frontal view, found {self.view}")
        return self.reason is not None

    def reject_unless_permitted(self, params: IngestParams) -> None:
        """Reject the file if the parameters exclude what its header states."""
        result = self.result
        if result.modality is not None and result.modality not in params.modalities:
            wanted, found = ", ".join(params.modalities), _FOUND.get(result.modality)
            self.reject(
                Reason.NOT_A_RADIOGRAPH,
                f"expected modality {wanted}, found {found or result.modality}",
            )
        elif result.for_processing:
            self.reject(
                Reason.FOR_PROCESSING, "expected an image for presentation, found a raw one"
            )
        elif params.colour == "reject" and result.photometric in COLOUR:
            self.reject(Reason.COLOUR, f"expected grey, found {result.photometric}")
        elif params.body_part == "chest" and result.body_part == "other":
            self.reject(Reason.NOT_A_CHEST, "expected a chest, the header names another part")
        elif params.burned_in == "reject" and result.burned_in == "yes":
            self.reject(Reason.BURNED_IN, "the header says that text is burned into the image")
        elif result.identity_removed not in _REMOVED[params.deid.identity_removed]:
            stated = result.identity_removed or "no word of it"
            self.reject(
                Reason.IDENTITY_NOT_REMOVED, f"expected Patient Identity Removed, found {stated}"
            )


def judge(candidates: Sequence[Candidate], archive: Archive, params: IngestParams) -> None:
    """Give every file its split and, if it is rejected, its reason; raises SplitLeakError."""
    _decide_views(candidates, params)
    for candidate in candidates:
        candidate.split = _split(candidate, archive, params.split)
        if candidate.reason is None and candidate.result.reason is not None:
            candidate.reject(Reason(candidate.result.reason), candidate.result.detail or "")
        if candidate.reason is None:
            candidate.reject_unless_permitted(params)
        if candidate.reason is None and params.views == "frontal":
            candidate.reject_unless_frontal()
    _reject_repeated(candidates, lambda result: result.file_sha256, Reason.DUPLICATE_CONTENT)
    _reject_repeated(candidates, lambda result: result.image_key, Reason.DUPLICATE_UID)
    _reject_repeated(candidates, lambda result: result.instance_key, Reason.DUPLICATE_UID)
    _reject_second_patient(candidates)
    for candidate in accepted(candidates):
        if not candidate.split:
            candidate.reject(Reason.NO_SPLIT, "expected its patient in the split table, found none")
    _require_one_split_per_patient(candidates)


def _decide_views(candidates: Sequence[Candidate], params: IngestParams) -> None:
    """Forget views that the study's description gave to several images; then assume, if asked to.

    A study called CHEST PA may have a lateral image too: its name tells the view of an only image.
    """
    images = Counter(c.result.study_key for c in candidates if c.result.pixels_sha256)
    for candidate in candidates:
        if candidate.view_source == "study" and images[candidate.result.study_key] > 1:
            candidate.view_decided = "", None
        if not candidate.view and params.unknown_view == "frontal":
            candidate.view_decided = "FRONTAL", "assumed"


def raw_twins(candidates: Sequence[Candidate]) -> frozenset[str]:
    """Return the paths of images for processing whose study has an image that is taken.

    Where a device sends both, that is every second file of an archive, and nothing is amiss.
    """
    complete = {candidate.result.study_key for candidate in accepted(candidates)}
    return frozenset(
        candidate.result.path
        for candidate in candidates
        if candidate.reason == Reason.FOR_PROCESSING and candidate.result.study_key in complete
    )


def accepted(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that are taken."""
    return [candidate for candidate in candidates if candidate.reason is None]


def _reject_repeated(
    candidates: Sequence[Candidate], key_of: Callable[[FileResult], str | None], reason: Reason
) -> None:
    seen: set[str] = set()
    for candidate in accepted(candidates):
        key = key_of(candidate.result)
        if key is None:
            continue
        if key in seen:
            candidate.reject(reason, "a file earlier in order of path has the same")
        seen.add(key)


def _reject_second_patient(candidates: Sequence[Candidate]) -> None:
    patients: dict[str | None, str | None] = {}
    for candidate in accepted(candidates):
        patient = candidate.result.patient_key
        if patients.setdefault(candidate.result.study_key, patient) != patient:
            candidate.reject(
                Reason.PATIENT_MISMATCH, "the study's first image names another patient"
            )


def _split(candidate: Candidate, archive: Archive, split: SplitParams) -> str:
    if archive.has_split:
        return candidate.listed.split or ""
    point = candidate.result.split_point
    return "" if point is None else split_of(point, split)


def split_of(point: float, params: SplitParams) -> str:
    """Return the split at ``point`` of [0, 1); a patient keeps it when patients are added."""
    if point < params.validate_share:
        return "validate"
    return "test" if point < params.validate_share + params.test else "train"


def _require_one_split_per_patient(candidates: Sequence[Candidate]) -> None:
    splits: dict[str | None, set[str]] = {}
    for candidate in candidates:
        if candidate.split:
            splits.setdefault(candidate.result.patient_key, set()).add(candidate.split)
    leaked = sum(len(names) > 1 for names in splits.values())
    if leaked:
        raise SplitLeakError(
            f"{leaked} patients stand in more than one split",
            hint="correct the archive's split table: all images of a patient share one split",
        )
