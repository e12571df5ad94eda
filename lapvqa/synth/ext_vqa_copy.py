"""The MIMIC-Ext-MIMIC-CXR-VQA 1.0.0 copy: questions about the frontal images of the MIMIC copy.

The kinds of question of the original: by content (presence, anatomy, attribute, abnormality, plane,
gender, size) and by form (verify, choose, query). Answers are true of what was drawn, whatever the
report says of it. They are lists of words, empty where nothing of what is asked about is there; a
query or a choice may have several.

The released split is Chest ImaGenome's; here a patient keeps the MIMIC split (validate becomes
valid), so that an encoder pretrained on the demo can be tested at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from string import Template as Blanks

import numpy as np

from lapvqa.synth import mimic_copy
from lapvqa.synth.findings import (
    ATELECTASIS,
    CARDIOMEGALY,
    CONSOLIDATION,
    DEVICE,
    DEVICES,
    EDEMA,
    EFFUSION,
    NODULE,
    PNEUMOTHORAX,
    SIDES,
    ZONES,
    Finding,
)
from lapvqa.synth.patient_history import stream
from lapvqa.synth.shots import write

FOLDER = "mimic-ext-mimic-cxr-vqa"

_BELOW = "MIMIC-Ext-MIMIC-CXR-VQA/dataset"
_STREAM = 40
"""Of the streams that a study's key opens; others are its pose, its report, its images."""
_SPLIT = {"train": "train", "validate": "valid", "test": "test"}
_PER_IMAGE = {"train": 4, "valid": 3, "test": 3}
_SHARES = {
    "presence": 0.28, "anatomy": 0.22, "attribute": 0.16, "abnormality": 0.14, "plane": 0.07,
    "gender": 0.06, "size": 0.07,
}  # fmt: skip
_EMPTY = 0.25
"""Share of empty answers that stay; most things are absent, and most answers would be empty."""
_BLANKS = ("object", "attribute", "category", "viewpos", "gender")

_NODULE = "lung nodule"
_FINDINGS = (ATELECTASIS, CARDIOMEGALY, CONSOLIDATION, EDEMA, EFFUSION, PNEUMOTHORAX, _NODULE)
_TUBE, _CATHETER, _PACEMAKER = DEVICES
_CATEGORIES = {
    "anatomical finding": _FINDINGS,
    "tubes/lines": (_TUBE, _CATHETER),
    "device": (_PACEMAKER,),
}
_ATTRIBUTES = (*_FINDINGS, *DEVICES)
_HEART = "cardiac silhouette"
_WHOLE = ("right lung", "left lung", _HEART)
"""Objects of which the phantom knows everything that is in them."""

Arguments = dict[str, str]


def places(finding: Finding) -> tuple[str, ...]:
    """Return the objects, by Chest ImaGenome's names, in which a finding lies."""
    if finding.kind == DEVICE:
        return ({_TUBE: "trachea", _CATHETER: "svc", _PACEMAKER: _HEART}[finding.device],)
    if finding.kind == CARDIOMEGALY:
        return (_HEART,)
    if finding.kind == EDEMA:
        return tuple(f"{side} lung" for side in SIDES)
    part = {
        EFFUSION: "costophrenic angle",
        PNEUMOTHORAX: "apical zone",
        ATELECTASIS: "lower lung zone",
    }.get(finding.kind, f"{finding.zone} lung zone")
    return f"{finding.side} lung", f"{finding.side} {part}"


def _attribute(finding: Finding) -> str:
    return finding.device or (_NODULE if finding.kind == NODULE else finding.kind)


@dataclass(frozen=True)
class Scene:
    """All that is known of one image; ``shown``: pairs of an attribute and an object."""

    shown: frozenset[tuple[str, str]]
    view: str
    """AP or PA."""
    gender: str

    @property
    def attributes(self) -> set[str]:
        """Everything that is there."""
        return {attribute for attribute, _ in self.shown}

    @property
    def abnormal(self) -> set[str]:
        """The whole objects with a finding; a device is none."""
        places = {place for attribute, place in self.shown if attribute in _FINDINGS}
        return places.intersection(_WHOLE)


def scene_of(study: mimic_copy.MimicStudy) -> Scene:
    """Return what a study's frontal image shows."""
    return Scene(
        frozenset(
            (_attribute(finding), place) for finding in study.findings for place in places(finding)
        ),
        study.images[0].view,
        "female" if study.anatomy.female else "male",
    )


@dataclass(frozen=True)
class Template:
    """A question with blanks, all that may fill them, and what answers it."""

    content: str
    semantic: str
    text: str
    choices: Sequence[Arguments]
    answer: Callable[[Scene, Arguments], Iterable[str]]


def _yes(value: bool) -> tuple[str]:
    return ("yes" if value else "no",)


def _single(name: str, values: Iterable[str]) -> list[Arguments]:
    return [{name: value} for value in values]


def _double(name: str, values: Iterable[tuple[str, str]]) -> list[Arguments]:
    return [{f"{name}_1": first, f"{name}_2": second} for first, second in values]


def _every_place() -> Iterator[tuple[str, str, str]]:
    """Return every attribute with a place that it may have and the place's other side, if any."""
    kinds = [Finding(DEVICE, 0, 0, device=device) for device in DEVICES]
    kinds += [Finding(kind, 0, 0) for kind in (CARDIOMEGALY, EDEMA)]
    kinds += [Finding(kind, 0, 0, "right") for kind in (EFFUSION, PNEUMOTHORAX, ATELECTASIS)]
    zoned = (CONSOLIDATION, NODULE)
    kinds += [Finding(kind, 0, 0, "right", zone) for kind in zoned for zone in ZONES]
    for finding in kinds:
        for place in places(finding):
            if place.startswith("right "):
                yield _attribute(finding), place, place.replace("right", "left")
            elif not place.startswith("left "):
                yield _attribute(finding), place, ""


_PLACED = tuple(dict.fromkeys(_every_place()))
_PAIRS = tuple(combinations(_ATTRIBUTES, 2))
_SIDED = [
    {"attribute": attribute, "object_1": place, "object_2": other}
    for attribute, place, other in _PLACED
    if other and attribute != EDEMA
]
_ANYWHERE = [
    {"attribute": attribute, "object": place}
    for attribute, *sides in _PLACED
    for place in sides
    if place
]


def _of(arguments: Arguments, name: str) -> set[str]:
    """Return what fills the blanks of a name."""
    return {value for blank, value in arguments.items() if blank.startswith(name)}


TEMPLATES = (
    Template(
        "presence", "verify", "Is there ${attribute}?", _single("attribute", _ATTRIBUTES),
        lambda scene, said: _yes(said["attribute"] in scene.attributes),
    ),
    Template(
        "presence", "verify", "Are ${attribute_1} and ${attribute_2} both present?",
        _double("attribute", _PAIRS),
        lambda scene, said: _yes(_of(said, "attribute") <= scene.attributes),
    ),
    Template(
        "presence", "verify", "Can ${attribute_1} or ${attribute_2} be seen?",
        _double("attribute", _PAIRS),
        lambda scene, said: _yes(bool(_of(said, "attribute") & scene.attributes)),
    ),
    Template(
        "presence", "verify", "Is any ${category} visible?", _single("category", _CATEGORIES),
        lambda scene, said: _yes(
            not scene.attributes.isdisjoint(_CATEGORIES[said["category"]])
        ),
    ),
    Template(
        "anatomy", "query", "Where is ${attribute} located?", _single("attribute", _ATTRIBUTES),
        lambda scene, said: {place for shown, place in scene.shown if shown == said["attribute"]},
    ),
    Template(
        "anatomy", "choose", "Where is ${attribute}, in the ${object_1} or the ${object_2}?",
        _SIDED,
        lambda scene, said: {
            place for place in _of(said, "object") if (said["attribute"], place) in scene.shown
        },
    ),
    Template(
        "anatomy", "verify", "Does the ${object} show ${attribute}?", _ANYWHERE,
        lambda scene, said: _yes((said["attribute"], said["object"]) in scene.shown),
    ),
    Template(
        "attribute", "query", "What is found in the ${object}?", _single("object", _WHOLE),
        lambda scene, said: {shown for shown, place in scene.shown if place == said["object"]},
    ),
    Template(
        "attribute", "query", "Name every ${category} of this image.",
        _single("category", _CATEGORIES),
        lambda scene, said: scene.attributes.intersection(_CATEGORIES[said["category"]]),
    ),
    Template(
        "attribute", "choose", "Which is present, ${attribute_1} or ${attribute_2}?",
        _double("attribute", _PAIRS),
        lambda scene, said: _of(said, "attribute") & scene.attributes,
    ),
    Template(
        "abnormality", "verify", "Is the ${object} abnormal?", _single("object", _WHOLE),
        lambda scene, said: _yes(said["object"] in scene.abnormal),
    ),
    Template(
        "abnormality", "verify", "Is this image free of abnormalities?", [{}],
        lambda scene, said: _yes(scene.attributes.isdisjoint(_FINDINGS)),
    ),
    Template(
        "abnormality", "query", "Which parts of the chest are abnormal?", [{}],
        lambda scene, said: scene.abnormal,
    ),
    Template(
        "abnormality", "choose", "Which is abnormal, the ${object_1} or the ${object_2}?",
        _double("object", combinations(_WHOLE, 2)),
        lambda scene, said: _of(said, "object") & scene.abnormal,
    ),
    Template(
        "plane", "verify", "Was this image taken in ${viewpos} view?",
        _single("viewpos", ("AP", "PA")),
        lambda scene, said: _yes(said["viewpos"] == scene.view),
    ),
    Template(
        "plane", "choose", "Is this view ${viewpos_1} or ${viewpos_2}?",
        _double("viewpos", [("AP", "PA")]),
        lambda scene, said: (scene.view.lower(),),
    ),
    Template(
        "plane", "query", "What is the view of this image?", [{}],
        lambda scene, said: (scene.view.lower(),),
    ),
    Template(
        "gender", "verify", "Is this patient ${gender}?", _single("gender", ("male", "female")),
        lambda scene, said: _yes(said["gender"] == scene.gender),
    ),
    Template(
        "gender", "choose", "Is this patient ${gender_1} or ${gender_2}?",
        _double("gender", [("male", "female")]),
        lambda scene, said: (scene.gender,),
    ),
    Template(
        "gender", "query", "What is the gender of this patient?", [{}],
        lambda scene, said: (scene.gender,),
    ),
    Template(
        "size", "verify", "Is the heart wider than half of the chest?", [{}],
        lambda scene, said: _yes(CARDIOMEGALY in scene.attributes),
    ),
    Template(
        "size", "verify", "Is the cardiothoracic ratio normal?", [{}],
        lambda scene, said: _yes(CARDIOMEGALY not in scene.attributes),
    ),
)  # fmt: skip


def write_tables(root: Path, studies: list[mimic_copy.MimicStudy]) -> None:
    """Write train.json, valid.json, test.json and ans2idx.json."""
    entries: dict[str, list[dict[str, object]]] = {split: [] for split in _SPLIT.values()}
    words: set[str] = set()
    for study in studies:
        split = _SPLIT[study.split]
        for template, said, answer in ask(study, _PER_IMAGE[split]):
            entry = _entry(study, split, len(entries[split]), template, said, answer)
            entries[split].append(entry)
            words.update(answer)
    folder = root / FOLDER / _BELOW
    for split, listed in entries.items():
        _write(folder / f"{split}.json", listed)
    _write(folder / "ans2idx.json", {word: place for place, word in enumerate(sorted(words))})


def ask(study: mimic_copy.MimicStudy, count: int) -> list[tuple[Template, Arguments, list[str]]]:
    """Return ``count`` different questions about a study's frontal image, with their answers."""
    rng, scene = stream(*study.key, _STREAM), scene_of(study)
    asked: dict[str, tuple[Template, Arguments, list[str]]] = {}
    while len(asked) < count:
        drawn = _draw(rng, scene)
        if drawn is not None:
            asked.setdefault(_spell(*drawn[:2]), drawn)
    return list(asked.values())


def _draw(rng: np.random.Generator, scene: Scene) -> tuple[Template, Arguments, list[str]] | None:
    """Draw one question; each answer that a template can have here is equally likely.

    None if the answer is empty, in most cases.
    """
    content = rng.choice(list(_SHARES), p=list(_SHARES.values()))
    templates = [template for template in TEMPLATES if template.content == content]
    template = templates[int(rng.integers(len(templates)))]
    by_answer: dict[tuple[str, ...], list[Arguments]] = {}
    for said in template.choices:
        by_answer.setdefault(tuple(sorted(template.answer(scene, said))), []).append(said)
    answer = sorted(by_answer)[int(rng.integers(len(by_answer)))]
    if not answer and rng.random() >= _EMPTY:
        return None
    said = by_answer[answer][int(rng.integers(len(by_answer[answer])))]
    return template, said, [str(word) for word in rng.permutation(answer)]


def _spell(template: Template, said: Arguments) -> str:
    return Blanks(template.text).substitute(said)


def _entry(
    study: mimic_copy.MimicStudy, split: str, number: int, template: Template, said: Arguments,
    answer: list[str],
) -> dict[str, object]:  # fmt: skip
    """Return one question as the release has it; values of a blank are numbered from 0."""
    filled = {
        blank: [value for name, value in said.items() if name.partition("_")[0] == blank]
        for blank in _BLANKS
    }
    image = study.images[0]
    return {
        "split": split,
        "idx": number,
        "image_id": image.dicom_id,
        "question": _spell(template, said),
        "content_type": template.content,
        "semantic_type": template.semantic,
        "template": template.text,
        "template_program": f"program_{TEMPLATES.index(template) + 1}",
        "template_arguments": {
            blank: {str(place): value for place, value in enumerate(values)}
            for blank, values in filled.items()
        },
        "answer": answer,
        "subject_id": str(study.subject),
        "study_id": str(study.number),
        "image_path": image.path.removeprefix("files/").replace(".dcm", ".jpg"),
    }


def _write(path: Path, content: object) -> None:
    write(path, f"{json.dumps(content, indent=1)}\n".encode())
