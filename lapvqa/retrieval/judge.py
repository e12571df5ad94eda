"""Judge encoders by how well films and reports of the archive's test patients find each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lapvqa.datasets.splits import SPLITS, TEST, TRAIN, VALIDATE, lowest
from lapvqa.evaluation import features
from lapvqa.evaluation.evaluate import Evaluation
from lapvqa.evaluation.report_studies import ReportStudy, read_samples, read_studies, read_targets
from lapvqa.evaluation.visual_tokens import shard_images
from lapvqa.job import Counts
from lapvqa.params import RetrievalParams
from lapvqa.project import Project
from lapvqa.retrieval.linear_map import LinearMap, Ranks, ReportWords, Studies, choose_map
from lapvqa.schemas import RETRIEVAL_PREDICTIONS
from lapvqa.text.bpe import encoding


def judge(run: Evaluation[RetrievalParams]) -> Counts:
    """Judge a set of encoders."""
    params, project = run.params, run.job.project
    studies = _read(project, most_images=params.most_images)
    empty = [split for split in SPLITS if not studies[split]]
    if empty:
        return run.not_computed(
            f"no study of the split {' and '.join(empty)} has both a report with text and a "
            "frontal image"
        )
    everybody = [study for split in SPLITS for study in studies[split]]
    images = shard_images([study.place for study in everybody], project)
    tokens = {split: _token_ids(studies[split]) for split in SPLITS}
    vocabulary = ReportWords(tokens[TRAIN], params.most_words)
    words = {split: vocabulary.vectors(tokens[split]) for split in SPLITS}
    ends = np.cumsum([len(studies[split]) for split in SPLITS])[:-1]
    run.empty_extra()
    encoders = run.encoders.load()
    means = features.means(encoders, images.digests, images.read, job=run.job)
    shares = _shares(run, studies[TEST])
    tables, facts = [], {}
    for system, values in means.items():
        parts = dict(zip(SPLITS, np.split(values.astype(np.float64), ends), strict=True))
        train, validate, test = (
            Studies(parts[split], words[split], [study.target.text for study in studies[split]])
            for split in SPLITS
        )
        fitted = choose_map(train, validate, grid=params.ridge_grid)
        facts[f"penalty_{system}"] = fitted.penalty
        tables += [_rows(system, studies[TEST], share, fitted, test) for share in shares]
    shown = shares[0]
    different = {studies[TEST][place].target.text for place in shown}
    protocol = {
        "features": "mean of the frozen encoder's pooled tokens, standardised on train",
        "map": "ridge regression to the TF-IDF of the report's GPT-2 tokens; penalty by the mean "
        "reciprocal rank on validate; refitted on train and validate; cosine",
        "equal_reports": "are one report, each of whose films is right",
        "ties": "count half",
        "words": len(vocabulary.columns),
        "films": len(shown),
        "reports": len(different),
        "chance_recall10": round(min(1.0, 10 / max(1, len(different))), 4),
        **{f"studies_{split}": len(studies[split]) for split in (TRAIN, VALIDATE)},
        **facts,
        **features.describe(encoders),
    }
    return run.publish(pa.concat_tables(tables), protocol)


def _read(project: Project, *, most_images: int) -> dict[str, list[ReportStudy]]:
    """Return every training film and one film per other study, by split."""
    targets = read_targets(project)
    studies = {split: read_studies(project, targets, split=split)[0] for split in (VALIDATE, TEST)}
    training = read_samples(project, targets, TRAIN)
    if len(training) > most_images:
        patients = (study.target.patient_key for study in training)
        chosen = lowest(patients, most_images / len(training), "retrieval")
        training = [study for study in training if study.target.patient_key in chosen]
    return {TRAIN: training, **studies}


def _token_ids(studies: Sequence[ReportStudy]) -> list[list[int]]:
    bpe = encoding()
    return [bpe.encode_ordinary(study.target.text.lower()) for study in studies]


def _shares(run: Evaluation[RetrievalParams], test: Sequence[ReportStudy]) -> list[list[int]]:
    """Return the places of the studies that may be seen, then of those sealed for the gate."""
    patients = pa.table({"patient": [study.target.patient_key for study in test]})
    seen = set(run.shown(patients)["patient"].to_pylist())
    places = range(len(test))
    shown = [place for place in places if test[place].target.patient_key in seen]
    return [shown, [place for place in places if test[place].target.patient_key not in seen]]


def _rows(
    system: str, test: Sequence[ReportStudy], share: list[int], fitted: LinearMap, all_of: Studies
) -> pa.Table:
    if not share:
        return RETRIEVAL_PREDICTIONS.empty_table()
    texts = [test[place].target.text for place in share]
    found: Ranks = fitted.rank(Studies(all_of.features[share], all_of.words[share], texts))
    columns = {
        "sample": [test[place].study_key for place in share],
        "patient": [test[place].target.patient_key for place in share],
        "system": [system] * len(share),
        "report_rank": found.report,
        "film_rank": found.film,
        "reports": [len(set(texts))] * len(share),
        "films": [len(share)] * len(share),
    }
    return pa.table(columns, schema=RETRIEVAL_PREDICTIONS)
