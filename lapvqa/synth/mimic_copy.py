"""The MIMIC-CXR copy: DICOM files and reports as in MIMIC-CXR 2, tables as in MIMIC-CXR-JPG."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np

from lapvqa.schemas import CHEXPERT_LABELS
from lapvqa.synth.anatomy import Anatomy, sample_anatomy
from lapvqa.synth.encode import Encoding, sample_encodings, uid_of
from lapvqa.synth.findings import chexpert_labels
from lapvqa.synth.patient_history import Findings, sample_history, share_out, stream
from lapvqa.synth.radiograph import Exposure
from lapvqa.synth.report_grammar import Report, write_report
from lapvqa.synth.shots import DicomForm, HeaderValue, Shot, TakenImage, pick, write, write_csv

FOLDER = "mimic-cxr"
MOST_STUDIES = 6

_DATASET = 1
_LATERAL = 0.12
_NO_REPORT = 0.03
_SIZES = (500, 660)
_ASPECTS = (0.83, 0.9, 0.96, 1.0, 1.0, 1.1, 1.2)
_SHARES = (("train", 0.7), ("validate", 0.1), ("test", 0.2))
_VIEW_MEANING = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral"}


@dataclass(frozen=True)
class MimicFile:
    """One DICOM file."""

    dicom_id: str
    path: str
    """Relative to the MIMIC folder."""
    view: str
    size: int
    aspect: float
    encoding: Encoding


@dataclass(frozen=True)
class MimicStudy:
    """One study: its findings, its images (the frontal one first), its report if it has one."""

    subject: int
    number: int
    order: int
    """0 for the patient's first."""
    split: str
    moment: datetime
    anatomy: Anatomy
    findings: Findings
    images: tuple[MimicFile, ...]
    examination: str
    key: tuple[int, ...]
    """Of its random stream."""
    reported: bool

    @cached_property
    def report(self) -> Report:
        """The report; also known, though not written, for studies that lack one."""
        return write_report(
            stream(*self.key, 3),
            self.findings,
            examination=self.examination,
            first=self.order == 0,
            female=self.anatomy.female,
        )

    @property
    def folder(self) -> str:
        """Folder of the images; the report is its sibling."""
        return f"files/p{str(self.subject)[:2]}/p{self.subject}/s{self.number}"


def _identifier(*parts: object) -> str:
    """Return five groups of eight hexadecimal digits."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


def _splits(rng: np.random.Generator, patients: int) -> list[str]:
    """Return each patient's split, in fixed shares; every split has a patient."""
    ends = np.round(np.cumsum([share for _, share in _SHARES]) * patients).astype(int)
    names = [
        next(name for (name, _), end in zip(_SHARES, ends, strict=True) if number < end)
        for number in range(patients)
    ]
    return [names[i] for i in rng.permutation(patients)]


def plan(seed: int, *, patients: int, studies: int) -> list[MimicStudy]:
    """Return every study of the copy, ordered by subject and time."""
    rng = stream(seed, _DATASET)
    subjects = np.sort(10_000_000 + rng.choice(9_999_999, patients, replace=False))
    numbers = 50_000_000 + rng.choice(9_999_999, studies, replace=False)
    counts = share_out(rng, studies, patients, MOST_STUDIES)
    splits = _splits(rng, patients)
    # Frontal and lateral images apart, so that every encoding is met in a small archive too.
    encodings = list(zip(*(sample_encodings(rng, studies) for _ in range(2)), strict=True))
    reported = rng.permutation(np.arange(studies) >= round(_NO_REPORT * studies))
    planned: list[MimicStudy] = []
    for index, (subject, count) in enumerate(zip(subjects, counts, strict=True)):
        own = stream(seed, _DATASET, index)
        anatomy = sample_anatomy(own)
        moments = _moments(own, count)
        for order, findings in enumerate(sample_history(own, count)):
            at = len(planned)
            planned.append(
                _study(
                    (seed, _DATASET, index, order), int(subject), int(numbers[at]), splits[index],
                    moments[order], anatomy, findings, encodings[at],
                    bool(reported[at]),
                )
            )  # fmt: skip
    return planned


def _moments(rng: np.random.Generator, count: int) -> list[datetime]:
    """Return the times of a patient's studies, shifted into the 2100s as MIMIC's are."""
    moment = datetime(2110, 1, 1) + timedelta(seconds=int(rng.integers(80 * 365 * 86_400)))
    moments = []
    for _ in range(count):
        moments.append(moment)
        moment += timedelta(seconds=int(3600 * 6 + rng.exponential(20 * 86_400)), milliseconds=281)
    return moments


def _study(
    key: tuple[int, ...], subject: int, number: int, split: str, moment: datetime,
    anatomy: Anatomy, findings: Findings, encodings: tuple[Encoding, ...], reported: bool,
) -> MimicStudy:  # fmt: skip
    """Draw the rest of one study: views and formats."""
    rng = stream(*key)
    lateral = bool(rng.random() < _LATERAL)
    view = "PA" if lateral or rng.random() < 0.42 else "AP"
    folder = f"files/p{str(subject)[:2]}/p{subject}/s{number}"
    images = []
    for place, shown in enumerate([view, "LATERAL"][: 1 + lateral]):
        dicom_id = _identifier("mimic", *key, place)
        aspect = pick(rng, (0.78, 0.82, 0.9) if shown == "LATERAL" else _ASPECTS)
        size = int(rng.integers(*_SIZES))
        path = f"{folder}/{dicom_id}.dcm"
        images.append(MimicFile(dicom_id, path, shown, size, aspect, encodings[place]))
    return MimicStudy(
        subject=subject,
        number=number,
        order=key[-1],
        split=split,
        moment=moment,
        anatomy=anatomy,
        findings=findings,
        images=tuple(images),
        examination="CHEST (PA AND LAT)" if view == "PA" else "CHEST (PORTABLE AP)",
        key=key,
        reported=reported,
    )


def _header(study: MimicStudy, image: MimicFile, place: int) -> tuple[tuple[str, HeaderValue], ...]:
    """Return what MIMIC-CXR's DICOM headers hold; no name, no real identity."""
    portable = image.view == "AP"
    position = "Recumbent" if portable else "Erect"
    moment = study.moment
    return (
        ("SpecificCharacterSet", "ISO_IR 100"),
        ("ImageType", ("DERIVED", "PRIMARY")),
        ("SOPInstanceUID", uid_of("mimic", image.dicom_id)),
        ("StudyDate", f"{moment:%Y%m%d}"),
        ("ContentDate", f"{moment:%Y%m%d}"),
        ("StudyTime", f"{moment:%H%M%S}.{moment.microsecond // 1000:03d}"),
        ("ContentTime", f"{moment:%H%M%S}.{moment.microsecond // 1000:03d}"),
        ("AccessionNumber", ""),
        ("Modality", "DX"),
        ("PresentationIntentType", "FOR PRESENTATION"),
        ("Manufacturer", "LAPVQA demo"),
        ("ReferringPhysicianName", ""),
        ("ProcedureCodeSequence", {"CodeMeaning": study.examination}),
        ("PatientName", ""),
        ("PatientID", str(study.subject)),
        ("PatientBirthDate", ""),
        ("PatientSex", ""),
        ("BodyPartExamined", "CHEST"),
        ("ViewPosition", image.view),
        ("StudyInstanceUID", uid_of("mimic study", study.number)),
        ("SeriesInstanceUID", uid_of("mimic series", study.number, place)),
        ("StudyID", str(study.number)),
        ("SeriesNumber", str(place + 1)),
        ("InstanceNumber", "1"),
        ("PatientOrientation", ("P", "F") if image.view == "LATERAL" else ("L", "F")),
        ("BurnedInAnnotation", "NO"),
        ("PatientOrientationCodeSequence", {"CodeMeaning": position}),
        ("ViewCodeSequence", {"CodeMeaning": _VIEW_MEANING[image.view]}),
        ("PerformedProcedureStepDescription", study.examination),
    )


def shots(studies: list[MimicStudy]) -> list[Shot]:
    """Return the images to take."""
    return [
        Shot(
            f"{FOLDER}/{image.path}",
            Exposure(
                study.anatomy, study.findings, image.view, image.size, image.aspect,
                (*study.key, 10 + place),
            ),
            DicomForm(_header(study, image, place), image.encoding),
        )
        for study in studies
        for place, image in enumerate(study.images)
    ]  # fmt: skip


def _clock(moment: datetime) -> str:
    """Return StudyTime as MIMIC-CXR-JPG has it: a float, leading zeros lost."""
    return f"{int(f'{moment:%H%M%S}')}.{moment.microsecond // 1000:03d}"


def write_tables(root: Path, studies: list[MimicStudy], drawn: Mapping[str, TakenImage]) -> None:
    """Write reports, lists, split, metadata and label tables."""
    folder = root / FOLDER
    every = [(study, image) for study in studies for image in study.images]
    for study in studies:
        if study.reported:
            write(folder / f"{study.folder}.txt", study.report.text.encode())
    write_csv(
        folder / "cxr-record-list.csv.gz",
        ("subject_id", "study_id", "dicom_id", "path"),
        [(s.subject, s.number, image.dicom_id, image.path) for s, image in every],
    )
    write_csv(
        folder / "cxr-study-list.csv.gz",
        ("subject_id", "study_id", "path"),
        [(s.subject, s.number, f"{s.folder}.txt") for s in studies],
    )
    write_csv(
        folder / "mimic-cxr-2.0.0-split.csv.gz",
        ("dicom_id", "study_id", "subject_id", "split"),
        [(image.dicom_id, s.number, s.subject, s.split) for s, image in every],
    )
    _write_metadata(folder, every, drawn)
    for labeler in ("chexpert", "negbio"):
        write_csv(
            folder / f"mimic-cxr-2.0.0-{labeler}.csv.gz",
            ("subject_id", "study_id", *CHEXPERT_LABELS),
            [(s.subject, s.number, *labels_of(s).values()) for s in studies],
        )


def labels_of(study: MimicStudy) -> dict[str, float | None]:
    """Return the study's 14 labels in alphabetical order."""
    return chexpert_labels(study.findings, study.report.negated)


def _write_metadata(
    folder: Path, every: list[tuple[MimicStudy, MimicFile]], drawn: Mapping[str, TakenImage]
) -> None:
    rows = []
    for study, image in every:
        size = drawn[f"{FOLDER}/{image.path}"]
        rows.append(
            (
                image.dicom_id, study.subject, study.number, study.examination, image.view,
                size.rows, size.cols, f"{study.moment:%Y%m%d}", _clock(study.moment),
                study.examination, _VIEW_MEANING[image.view],
                "Recumbent" if image.view == "AP" else "Erect",
            )
        )  # fmt: skip
    write_csv(
        folder / "mimic-cxr-2.0.0-metadata.csv.gz",
        (
            "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription",
            "ViewPosition", "Rows", "Columns", "StudyDate", "StudyTime",
            "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
            "PatientOrientationCodeSequence_CodeMeaning",
        ),
        rows,
    )  # fmt: skip
