"""Reports written by heads over the tokens of frozen encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapvqa.evaluation import writing
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.evaluation.visual_tokens import Images, Vision, open_vision, seeded
from lapvqa.evaluation.writing import Sample
from lapvqa.heads import checkpoint
from lapvqa.heads.recipe import Fitted
from lapvqa.images.shards import ShardStore, verify_shards
from lapvqa.job import Job
from lapvqa.metrics.texts.ngrams import bleu_counts, corpus_bleu
from lapvqa.params import RrgParams
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.rrg.heads import ReportGenerationHead

_JUDGED = 256
"""Validation studies whose BLEU-4 stands in the head's file."""


@dataclass(frozen=True)
class Target:
    """A study's target text, whole (not cut at tokens.max_length)."""

    patient_key: str
    split: str
    text: str


@dataclass(frozen=True)
class Study:
    """A study and one image of it: where its pixels lie, what is to be written, what is known."""

    study_key: str
    shard: str
    row: int
    pixels_sha256: str
    target: Target
    truth: list[str] | None = None


@dataclass(frozen=True)
class Written:
    """System -> reports of the test studies, and facts for the protocol."""

    texts: dict[str, list[str]]
    facts: dict[str, Any]


def write_reports(
    encoders: Mapping[str, ImageEncoder],
    test: Sequence[Study],
    others: Mapping[str, Sequence[Study]],
    params: RrgParams,
    extra: Path,
    job: Job,
) -> Written:
    """Teach one head per encoder on ``others`` (train, validate); let it write of ``test``.

    The first system's head is written to ``extra``. Without a training study nothing is written.
    """
    if not others["train"]:
        return Written({}, {"heads": "not trained: no training study has an image and a text"})
    everything = [*others["train"], *others["validate"], *test]
    images = _images(everything, job.project)
    samples = [
        writing.as_sample((number,), params.prompt, study.target.text)
        for number, study in enumerate(everything)
    ]
    ends = np.cumsum([len(others["train"]), len(others["validate"])]).tolist()
    parts = samples[: ends[0]], samples[ends[0] : ends[1]], samples[ends[1] :]
    texts, facts = {}, _protocol(params)
    for name, encoder, recipe in seeded(encoders, params.recipe):
        progress = partial(_tell, job.recorder, f"head on {name}")
        vision = open_vision(
            encoder, images, "pooled", recipe, job=job,
            progress=partial(progress, "images"),
        )  # fmt: skip
        head = _new_head(vision.width, recipe.seed, params)
        lessons = writing.prepare(head, *parts, max_new_tokens=params.max_new_tokens, name="rrg")
        fitted = writing.learn(head, vision, lessons, recipe, partial(progress, "steps"))
        texts[name] = writing.write(head, vision, parts[2], max_new_tokens=params.max_new_tokens)
        facts |= {**fitted.describe(f"head_{name}"), "head_texts_cut": lessons.shortened}
        if len(texts) == 1:
            _save(head, vision, encoder, parts[1], others["validate"], fitted, params, extra)
            vision.save_trained(extra)
    return Written(texts, facts)


def _save(
    head: ReportGenerationHead,
    vision: Vision,
    encoder: ImageEncoder,
    samples: Sequence[Sample],
    studies: Sequence[Study],
    fitted: Fitted,
    params: RrgParams,
    extra: Path,
) -> None:
    """Write the head in its published form, with its BLEU-4 on validation studies."""
    judged = samples[:_JUDGED]
    texts = writing.write(head, vision, judged, max_new_tokens=params.max_new_tokens)
    bleu4 = 0.0
    if texts:
        counts = bleu_counts([one.target.text for one in studies[:_JUDGED]], texts)
        bleu4 = float(corpus_bleu(counts, np.ones((1, len(texts))))[0, 3])
    checkpoint.save(
        head, extra / "head.pt", encoder=encoder.about, epoch=fitted.epoch, val_bleu4=bleu4
    )


def _new_head(width: int, seed: int, params: RrgParams) -> ReportGenerationHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ReportGenerationHead(width, **params.head.model_dump())


def _images(studies: Sequence[Study], project: Project) -> Images:
    verify_shards(project.images_dir, {study.shard for study in studies})
    store = ShardStore(project.images_dir)

    def read(numbers: Sequence[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        chosen = [studies[number] for number in numbers]
        return store.read([one.shard for one in chosen], [one.row for one in chosen])

    return Images([study.pixels_sha256 for study in studies], read)


def _protocol(params: RrgParams) -> dict[str, Any]:
    return {
        "head": "ReportGenerationHead over the encoder's pooled tokens",
        "head_prompt": params.prompt,
        **{f"head_{key}": value for key, value in params.head.model_dump().items()},
        **{f"recipe_{key}": value for key, value in params.recipe.model_dump().items()},
    }


def _tell(recorder: Recorder, note: str, unit: str, done: int, total: int) -> None:
    recorder.progress(done, total, unit=unit, note=note)
