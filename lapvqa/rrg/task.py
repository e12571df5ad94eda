"""Report generation: the decoder writes the report of studies it never saw.

Two writers: the caption decoder of the pipeline's model (systems trained, untrained) and a head
taught on the frozen encoder's tokens (head_trained, head_untrained; of an encoder that stands
alone, its name), which every encoder can have. Beside them the most common training report, given
to every study.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.evaluation import contract, features
from lapvqa.evaluation.subject import Subject, pipeline
from lapvqa.images.report_pairs import read_pairs
from lapvqa.images.shards import ShardStore, verify_shards
from lapvqa.images.transforms import to_input
from lapvqa.job import Counts, Job
from lapvqa.networks.device import choose_device, make_deterministic
from lapvqa.networks.generation import generate
from lapvqa.params import EvaluateParams, RrgParams
from lapvqa.pretrain.files import load_captioner, read_objective, untrained_captioner
from lapvqa.pretrain.model import OBJECTIVES, CaptioningModel
from lapvqa.project import Project
from lapvqa.rrg import report_head, scoring
from lapvqa.rrg.report_head import Study, Target
from lapvqa.schemas import CHEXPERT_LABELS, LABELS, RRG_PREDICTIONS, STUDIES, TOKENS
from lapvqa.text.bpe import encoding
from lapvqa.text.sections import normalise

# Studies per forward pass; fixed, because the bits of a sum may depend on it.
_BATCH = 32


EVALUATION = contract.Evaluation(
    task="rrg",
    schema=RRG_PREDICTIONS,
    primary=scoring.PRIMARY,
    measure=scoring.measure,
    curves=scoring.curves,
    curve_columns=scoring.CURVE_COLUMNS,
    compared=(
        ("trained", "untrained"),
        ("trained", "most_common"),
        ("head_trained", "head_untrained"),
    ),
)


def with_weights(params: EvaluateParams, project: Project) -> contract.Evaluation:
    """Return how reports are scored where params.yaml gives weights; ConfigError if one lacks."""
    weights = scoring.find_weights(params.rrg.weights, project.root)
    return replace(EVALUATION, measure=partial(scoring.measure, weights=weights))


def run(params: EvaluateParams, job: Job) -> Counts:
    """Judge the pipeline's model: write results/rrg; see ``evaluate``."""
    return evaluate(pipeline(job), params, job)


def evaluate(subject: Subject, params: EvaluateParams, job: Job) -> Counts:
    """Judge a subject's encoders, and the caption decoder of its model if it has one.

    Raises ConfigError if rrg.max_new_tokens exceeds the decoder's positions.
    """
    split, folder = params.rrg.split, subject.folder("rrg")
    evaluation = with_weights(params, job.project)
    targets = read_targets(job.project, params.rrg.sections)
    studies, without_image = read_studies(job.project, targets, split=split)
    if not studies:
        reason = f"no study of the split {split} has both a report with text and a frontal image"
        return contract.not_computed(evaluation, reason, folder=folder, common=params.common)
    extra = contract.empty_extra(folder)
    make_deterministic(threads=job.machine.workers)
    written = {}
    if subject.model is not None and writes(subject.model):
        written = _write_all(subject.model, studies, params.rrg, job)
    encoders = subject.load()
    described = features.describe(encoders)
    by_heads = report_head.write_reports(
        encoders,
        studies,
        {split: _samples(job.project, targets, split) for split in ("train", "validate")},
        params.rrg,
        extra,
        job,
    )
    prefix = "head_" if subject.model is not None else ""
    written |= {f"{prefix}{name}": texts for name, texts in by_heads.texts.items()}
    common_text, common_count = most_common(targets)
    written["most_common"] = [common_text] * len(studies)
    predictions = _predictions(studies, written)
    protocol = {
        **scoring.PROTOCOL,
        "finding_truth": scoring.truth_source(predictions),
        "studies_with_truth": sum(study.truth is not None for study in studies),
        "split": split,
        "sections": params.rrg.sections,
        "image": "one per study: the first AP or PA by key, else the first of unknown view",
        "studies_without_frontal_image": without_image,
        "decoding": "greedy",
        "max_new_tokens": params.rrg.max_new_tokens,
        "reference": "target text of the chosen sections, white space collapsed, never cut",
        "most_common_training_studies": common_count,
        **described,
        **by_heads.facts,
        **{f"empty_outputs_{system}": texts.count("") for system, texts in written.items()},
    }
    return contract.publish(
        evaluation, predictions, protocol=protocol, folder=folder, common=params.common
    )


def writes(model: Path) -> bool:
    """Return whether the model of a folder has a decoder that writes reports."""
    return OBJECTIVES[read_objective(model)] is CaptioningModel


def _samples(project: Project, targets: dict[str, Target], split: str) -> list[Study]:
    """Return every frontal image of the split's studies, with what is to be written."""
    pairs, _ = read_pairs(project, split)
    return [
        Study(pair.study_key, pair.shard, pair.row, pair.pixels_sha256, targets[pair.study_key])
        for pair in pairs
        if pair.study_key in targets
    ]


def read_targets(project: Project, sections: str = "both") -> dict[str, Target]:
    """Return the target text of every tokenised study that has the chosen ``sections``.

    "both": all that was tokenised, whatever the report calls it.
    """
    studies = storage.read_table(project.studies, STUDIES, made_by="ingest")
    tokens = storage.read_table(project.tokens_dir, TOKENS, made_by="tokens")
    keys = studies["study_key"].to_pylist()
    reports = dict(zip(keys, studies["report"].to_pylist(), strict=True))
    columns = ("study_key", "patient_key", "split", "spans")
    rows = zip(*(tokens[name].to_pylist() for name in columns), strict=True)
    found = {
        key: Target(patient, split, _text(reports[key], _chosen(spans, sections)))
        for key, patient, split, spans in rows
    }
    return {key: target for key, target in found.items() if target.text}


def read_studies(
    project: Project, targets: dict[str, Target], *, split: str
) -> tuple[list[Study], int]:
    """Return the studies of ``split`` by key, and how many reports there have no frontal image."""
    pairs, without_image = read_pairs(project, split)
    truth = read_truth(project)
    first = {pair.study_key: pair for pair in reversed(pairs)}
    studies = [
        Study(key, pair.shard, pair.row, pair.pixels_sha256, targets[key], truth.get(key))
        for key, pair in sorted(first.items())
        if key in targets
    ]
    return studies, without_image


def read_truth(project: Project) -> dict[str, list[str]]:
    """Return the positive labels of every study that the archive labels."""
    rows = storage.read_table(project.labels, LABELS, made_by="ingest").to_pylist()
    return {
        row["study_key"]: [label for label in CHEXPERT_LABELS if row[label] == 1] for row in rows
    }


def most_common(targets: dict[str, Target]) -> tuple[str, int]:
    """Return the most frequent training text (of equals the first in order) and its count."""
    counts = Counter(target.text for target in targets.values() if target.split == "train")
    return min(counts.items(), key=lambda item: (-item[1], item[0]))


def write_reports(
    model: CaptioningModel, studies: Sequence[Study], store: ShardStore, *, max_new_tokens: int
) -> Iterator[str]:
    """Yield the report that ``model`` writes for each study; white space is collapsed."""
    limit = model.decoder.max_length
    if max_new_tokens > limit:
        raise ConfigError(
            f"evaluate.rrg.max_new_tokens is {max_new_tokens}, the decoder has {limit} positions",
            hint=f"set evaluate.rrg.max_new_tokens to at most {limit}",
        )
    device = next(model.parameters()).device
    bpe = encoding()
    for start in range(0, len(studies), _BATCH):
        batch = studies[start : start + _BATCH]
        pixels = store.read([study.shard for study in batch], [study.row for study in batch])
        images = to_input(torch.from_numpy(pixels).to(device), model.vision_encoder.image_size)
        for ids in generate(model, images, max_new_tokens=max_new_tokens):
            yield normalise(bpe.decode(ids))


def _write_all(
    folder: Path, studies: Sequence[Study], params: RrgParams, job: Job
) -> dict[str, list[str]]:
    """Return system -> texts of the trained and the untrained model, in the order of studies."""
    store = ShardStore(job.project.images_dir)
    verify_shards(job.project.images_dir, {study.shard for study in studies})
    device = choose_device(job.machine)
    models = {"trained": load_captioner(folder), "untrained": untrained_captioner(folder)}
    written: dict[str, list[str]] = {system: [] for system in models}
    for number, (system, model) in enumerate(models.items()):
        texts = write_reports(
            model.to(device), studies, store, max_new_tokens=params.max_new_tokens
        )
        for done, text in enumerate(texts, start=1 + number * len(studies)):
            written[system].append(text)
            job.recorder.progress(done, len(models) * len(studies), unit="reports", note=system)
    return written


def _chosen(spans: Sequence[dict[str, Any]], sections: str) -> list[dict[str, Any]]:
    return [span for span in spans if sections in ("both", span["name"])]


def _text(report: str, spans: Sequence[dict[str, Any]]) -> str:
    return " ".join(normalise(report[span["start"] : span["end"]]) for span in spans)


def _predictions(studies: Sequence[Study], written: dict[str, list[str]]) -> pa.Table:
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
