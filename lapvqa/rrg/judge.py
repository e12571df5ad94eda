"""Judge encoders by the reports that the caption decoder and a head per encoder write."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.evaluation import features, writing
from lapvqa.evaluation.evaluate import Evaluation
from lapvqa.evaluation.head_training import describe, train_heads
from lapvqa.evaluation.report_studies import (
    ReportStudy,
    TargetReport,
    count_languages,
    most_common,
    read_samples,
    read_studies,
    read_targets,
)
from lapvqa.evaluation.results import BASELINE
from lapvqa.evaluation.visual_tokens import VisualTokens, shard_images
from lapvqa.evaluation.writing import WritingHead
from lapvqa.heads.text import TextHead
from lapvqa.images.shards import ShardStore, verify_shards
from lapvqa.job import Counts, Job
from lapvqa.metrics.texts.ngrams import bleu_counts, corpus_bleu
from lapvqa.networks.device import open_computer
from lapvqa.params import RrgParams
from lapvqa.pretrain.files import load_captioner, untrained_captioner, writes_reports
from lapvqa.project import Project
from lapvqa.rrg import scoring
from lapvqa.rrg.decoding import decode_reports
from lapvqa.rrg.heads import ReportGenerationHead
from lapvqa.schemas import RRG_PREDICTIONS

_JUDGED = 256
"""Validation studies whose BLEU-4 stands in the head's file."""


def judge(run: Evaluation[RrgParams]) -> Counts:
    """Judge a set of encoders, and the caption decoder of its model if it has one.

    Raises ConfigError if rrg.max_new_tokens exceeds the decoder's positions.
    """
    params, job = run.params, run.job
    targets = read_targets(job.project, params.sections)
    studies, without_image = read_studies(job.project, targets, split=params.split)
    if not studies:
        return run.not_computed(
            f"no study of the split {params.split} has both a report with text and a frontal image"
        )
    extra = run.empty_extra()
    texts: dict[str, list[str]] = {}
    model = run.encoders.model
    if model is not None and writes_reports(model):
        texts = _decode_all(model, studies, params, job)
    encoders = run.encoders.load()
    head_facts: dict[str, Any] = {"heads": "not trained: no training study has an image and a text"}
    writer = _writing_head(studies, targets, params, job.project)
    if writer is not None:
        heads = train_heads(writer, encoders, params.recipe, extra=extra, job=job)
        prefix = "head_" if model is not None else ""
        texts |= {f"{prefix}{name}": written for name, written in heads.predictions.items()}
        head_facts = {
            "head": "ReportGenerationHead over the encoder's pooled tokens",
            "head_prompt": params.prompt,
            "head_texts_cut": writer.shortened,
            **describe(params.head, params.recipe),
            **heads.describe("head_"),
        }
    common_text, common_count = most_common(targets)
    texts[BASELINE] = [common_text] * len(studies)
    predictions = _predictions(studies, texts)
    shown = run.shown(predictions)
    protocol = {
        **scoring.PROTOCOL,
        "finding_truth": scoring.truth_source(predictions),
        "studies_with_truth": _with_truth(shown),
        "split": params.split,
        "sections": params.sections,
        "image": "one per study: the first frontal one by key",
        "studies_without_frontal_image": without_image,
        "decoding": "greedy",
        "max_new_tokens": params.max_new_tokens,
        "reference": "target text of the chosen sections, white space collapsed, never cut",
        "most_common_training_studies": common_count,
        **scoring.describe_languages(count_languages(job.project, studies)),
        **features.describe(encoders),
        **head_facts,
        **{f"empty_outputs_{system}": _empty(shown, system) for system in texts},
    }
    return run.publish(predictions, protocol)


class ReportHead(WritingHead):
    """The head that writes reports; its file holds its BLEU-4 on validation studies."""

    def __init__(self, validate: Sequence[ReportStudy], *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self._studies = validate

    def file_scores(self, head: TextHead, tokens: VisualTokens) -> dict[str, float]:
        """Return BLEU-4 of at most 256 validation studies; 0 without any."""
        texts = self.write(head, tokens, self._validate[:_JUDGED])
        if not texts:
            return {"val_bleu4": 0.0}
        counts = bleu_counts([study.target.text for study in self._studies[:_JUDGED]], texts)
        return {"val_bleu4": float(corpus_bleu(counts, np.ones((1, len(texts))))[0, 3])}


def _writing_head(
    test: Sequence[ReportStudy],
    targets: dict[str, TargetReport],
    params: RrgParams,
    project: Project,
) -> ReportHead | None:
    """Return the head and its samples; None without a training study."""
    train, validate = (read_samples(project, targets, split) for split in ("train", "validate"))
    if not train:
        return None
    studies = [*train, *validate, *test]
    samples = [
        writing.as_sample((number,), params.prompt, study.target.text)
        for number, study in enumerate(studies)
    ]
    images = shard_images([study.place for study in studies], project)
    ends = len(train), len(train) + len(validate)
    return ReportHead(
        validate,
        partial(ReportGenerationHead, **params.head.model_dump()),
        images,
        samples[: ends[0]],
        samples[ends[0] : ends[1]],
        samples[ends[1] :],
        max_length=ReportGenerationHead.sizes.max_length,
        max_new_tokens=params.max_new_tokens,
        batch_size=params.recipe.batch_size,
        task="rrg",
    )


def _decode_all(
    folder: Path, studies: Sequence[ReportStudy], params: RrgParams, job: Job
) -> dict[str, list[str]]:
    """Return system -> texts of the trained and the untrained model, in the order of studies."""
    store = ShardStore(job.project.images_dir)
    verify_shards(job.project.images_dir, {study.shard for study in studies})
    computer = open_computer(job.machine, job.computing)
    models = {"trained": load_captioner(folder), "untrained": untrained_captioner(folder)}
    written: dict[str, list[str]] = {system: [] for system in models}
    for number, (system, model) in enumerate(models.items()):
        texts = decode_reports(
            model, studies, store, computer=computer, max_new_tokens=params.max_new_tokens
        )
        for done, text in enumerate(texts, start=1 + number * len(studies)):
            written[system].append(text)
            job.recorder.progress(done, len(models) * len(studies), unit="reports", note=system)
    return written


def _predictions(studies: Sequence[ReportStudy], written: dict[str, list[str]]) -> pa.Table:
    rows = [
        {
            "sample": study.study_key,
            "patient": study.target.patient_key,
            "system": system,
            "reference": study.target.text,
            "hypothesis": text,
            "truth": study.truth,
        }
        for system, texts in written.items()
        for study, text in zip(studies, texts, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=RRG_PREDICTIONS)


def _with_truth(shown: pa.Table) -> int:
    """Return of how many studies that may be seen findings are known."""
    return len(set(shown.filter(pc.is_valid(shown["truth"]))["sample"].to_pylist()))


def _empty(shown: pa.Table, system: str) -> int:
    own = shown.filter(pc.equal(shown["system"], system))
    return int(pc.sum(pc.equal(own["hypothesis"], "")).as_py() or 0)
