"""The MIMIC-Diff-VQA copy: questions about a study and about what changed since the one before.

The released pair table's split is unrelated to MIMIC-CXR's; here a patient keeps the MIMIC split
(validate becomes val), so that an encoder pretrained on the demo can be tested at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from lapvqa.schemas import CHEXPERT_LABELS
from lapvqa.synth import mimic_copy
from lapvqa.synth.findings import (
    ATELECTASIS,
    CARDIOMEGALY,
    CONSOLIDATION,
    DEVICE,
    EDEMA,
    EFFUSION,
    NODULE,
    PNEUMOTHORAX,
    Finding,
)
from lapvqa.synth.patient_history import Findings
from lapvqa.synth.report_grammar import join
from lapvqa.synth.shots import write, write_csv

FOLDER = "mimic-diff-vqa"

_DISEASES = (ATELECTASIS, CARDIOMEGALY, CONSOLIDATION, EDEMA, EFFUSION, PNEUMOTHORAX, "lung nodule")
_SPLIT = {"train": "train", "validate": "val", "test": "test"}
_LEVELLED = (CARDIOMEGALY, EDEMA, EFFUSION, PNEUMOTHORAX)
_VIEW = {"PA": "postero-anterior", "AP": "antero-posterior"}


@dataclass(frozen=True)
class Entity:
    """One disease of one study, both sides together: names as the questions use them."""

    name: str
    places: tuple[str, ...]
    level: str


def entities(findings: Findings) -> dict[str, Entity]:
    """Return the study's diseases by name; a two-sided one takes the worse level."""
    by_name: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.kind != DEVICE:
            name = "lung nodule" if finding.kind == NODULE else finding.kind
            by_name.setdefault(name, []).append(finding)
    return {name: _entity(name, group) for name, group in sorted(by_name.items())}


def _entity(name: str, group: list[Finding]) -> Entity:
    places = tuple(sorted({_place(finding) for finding in group} - {""}, reverse=True))
    worst = max(group, key=lambda finding: finding.grade)
    return Entity(name, places, worst.severity if worst.kind in _LEVELLED else "")


def _place(finding: Finding) -> str:
    if finding.zone:
        return f"{finding.side} {finding.zone} lung"
    if finding.kind == ATELECTASIS:
        return f"{finding.side} base"
    return f"{finding.side} lung" if finding.side else ""


def difference(reference: Mapping[str, Entity], main: Mapping[str, Entity]) -> str:
    """Return the answer to what has changed, in the dataset's grammar."""
    sentences = []
    for verb, names in (
        ("has", [name for name in main if name not in reference]),
        ("is missing", [name for name in reference if name not in main]),
    ):
        if not names:
            continue
        noun = "finding" if len(names) == 1 else "findings"
        lead = (
            f"has {'an additional' if len(names) == 1 else 'additional'} {noun}"
            if verb == "has"
            else f"is missing the {noun}"
        )
        sentences.append(f"the main image {lead} of {join(names)} than the reference image.")
    for name in main:
        before, now = reference[name].level if name in reference else "", main[name].level
        if name in reference and before != now:
            sentences.append(f"the level of {name} has changed from {before} to {now}.")
    return " ".join(sentences) or "nothing has changed."


def _single(study: mimic_copy.MimicStudy, index: int) -> list[tuple[str, str, str]]:
    """Return (type, question, answer) about the main image alone."""
    shown = entities(study.findings)
    names = list(shown)
    asked = _DISEASES[index % len(_DISEASES)]
    answers = [
        (
            "abnormality",
            "what abnormalities are seen in this image?",
            ", ".join(names) or "no abnormalities",
        ),
        ("presence", f"is there evidence of {asked} in this image?", _yes(asked in shown)),
        ("view", "which view is this image taken?", f"{study.images[0].view.lower()} view"),
    ]
    for entity in shown.values():
        answers.append(("presence", f"is there any {entity.name}?", "yes"))
        if entity.places:
            question = f"where in the image is the {entity.name} located?"
            answers.append(("location", question, ", ".join(entity.places)))
        if entity.level:
            answers.append(("level", f"what level is the {entity.name}?", entity.level))
        if entity.name == ATELECTASIS:
            answers.append(("type", "what type is the atelectasis?", "linear"))
    return answers


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def write_tables(root: Path, studies: list[mimic_copy.MimicStudy]) -> None:
    """Write mimic_pair_questions.csv, mimic_all.csv and all_diseases.json."""
    folder = root / FOLDER
    rows: list[tuple[object, ...]] = []
    for index, (reference, main) in enumerate(pairwise(studies)):
        if reference.subject != main.subject:
            continue
        change = difference(entities(reference.findings), entities(main.findings))
        questions = [
            ("difference", "what has changed compared to the reference image?", change),
            *_single(main, index),
        ]
        pair = (main.number, main.subject, reference.number)
        rows += [(*pair, *question, _SPLIT[main.split]) for question in questions]
    write_csv(
        folder / "mimic_pair_questions.csv",
        ("study_id", "subject_id", "ref_id", "question_type", "question", "answer", "split"),
        rows,
    )
    _write_all(folder, studies)
    text = json.dumps([_diseases(study) for study in studies], indent=1)
    write(folder / "all_diseases.json", f"{text}\n".encode())


def _write_all(folder: Path, studies: list[mimic_copy.MimicStudy]) -> None:
    header = (
        "subject_id", "study_id", *CHEXPERT_LABELS, "dicom_id", "view", "split", "study_date",
        "study_order",
    )  # fmt: skip
    rows = [
        (
            study.subject, study.number, *mimic_copy.labels_of(study).values(),
            study.images[0].dicom_id, _VIEW[study.images[0].view], study.split,
            f"{study.moment:%Y%m%d}", study.order + 1,
        )
        for study in studies
    ]  # fmt: skip
    write_csv(folder / "mimic_all.csv", header, rows)


def _diseases(study: mimic_copy.MimicStudy) -> dict[str, object]:
    shown = entities(study.findings)
    entity = {
        name: {
            "entity_name": name,
            "location": list(disease.places) or None,
            "type": ["linear"] if name == ATELECTASIS else None,
            "level": [disease.level] if disease.level else None,
            "post_location": None,
            "location2": None,
        }
        for name, disease in shown.items()
    }
    absent = [name for name in _DISEASES if name not in shown and name in study.report.negated]
    return {
        "study_id": str(study.number),
        "subject_id": str(study.subject),
        "entity": entity,
        "no_entity": absent,
    }
