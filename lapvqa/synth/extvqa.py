"""The MIMIC-Ext-MIMIC-CXR-VQA 1.0.0 copy: questions about the frontal images of the MIMIC copy.

Answers are true of what was drawn, whatever the report says of it. They are lists of words, empty
where nothing of what is asked about is there. The released split is Chest ImaGenome's; here a
patient keeps the MIMIC split (validate becomes valid), so that an encoder pretrained on the demo
can be tested at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Template as Blanks

import numpy as np

from lapvqa.synth import mimic
from lapvqa.synth.history import stream
from lapvqa.synth.questions import TEMPLATES, Arguments, Scene, Template, scene_of
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


def write_tables(root: Path, studies: list[mimic.Study]) -> None:
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


def ask(study: mimic.Study, count: int) -> list[tuple[Template, Arguments, list[str]]]:
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
    study: mimic.Study, split: str, number: int, template: Template, said: Arguments,
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
