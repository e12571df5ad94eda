"""What can be asked of one frontal image of the phantom, and what answers it truly.

The kinds of question of MIMIC-Ext-MIMIC-CXR-VQA: by content (presence, anatomy, attribute,
abnormality, plane, gender, size) and by form (verify, choose, query). A query or a choice may
have several answers, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from lapvqa.synth import mimic
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
    """What is known of one image; ``found`` are pairs of an attribute and an object."""

    found: frozenset[tuple[str, str]]
    view: str
    """AP or PA."""
    gender: str

    @property
    def attributes(self) -> set[str]:
        """Everything that is there."""
        return {attribute for attribute, _ in self.found}

    @property
    def abnormal(self) -> set[str]:
        """The whole objects with a finding; a device is none."""
        pairs = {one for attribute, one in self.found if attribute in _FINDINGS}
        return pairs.intersection(_WHOLE)


def scene_of(study: mimic.Study) -> Scene:
    """Return what a study's frontal image shows."""
    return Scene(
        frozenset((_attribute(one), place) for one in study.findings for place in places(one)),
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
    for one in kinds:
        for place in places(one):
            if place.startswith("right "):
                yield _attribute(one), place, place.replace("right", "left")
            elif not place.startswith("left "):
                yield _attribute(one), place, ""


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
        lambda scene, said: {place for one, place in scene.found if one == said["attribute"]},
    ),
    Template(
        "anatomy", "choose", "Where is ${attribute}, in the ${object_1} or the ${object_2}?",
        _SIDED,
        lambda scene, said: {
            place for place in _of(said, "object") if (said["attribute"], place) in scene.found
        },
    ),
    Template(
        "anatomy", "verify", "Does the ${object} show ${attribute}?", _ANYWHERE,
        lambda scene, said: _yes((said["attribute"], said["object"]) in scene.found),
    ),
    Template(
        "attribute", "query", "What is found in the ${object}?", _single("object", _WHOLE),
        lambda scene, said: {one for one, place in scene.found if place == said["object"]},
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
