"""From written reports to numbers: BLEU, ROUGE, and the F1 of the findings they assert."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lapvqa.errors import SchemaError
from lapvqa.evaluation.contract import Measures
from lapvqa.metrics import findings, text
from lapvqa.rrg import labeler

Array = NDArray[np.float64]

SYSTEMS = ("trained", "untrained", "most_common")
CURVE_COLUMNS = ("finding", *SYSTEMS)
PRIMARY = "finding_f1_micro"
NAMES = (
    "bleu1", "bleu2", "bleu3", "bleu4", *text.ROUGE_TYPES, PRIMARY, "finding_f1_macro",
    *(f"finding_f1/{label}" for label in labeler.FINDINGS),
)  # fmt: skip

FROM_LABELS = (
    "the archive's CheXpert labels: 1 is positive; 0, -1 (uncertain) and blank are not; "
    "studies without labels do not count"
)
FROM_REFERENCES = "the labeler on the reference text (the archive brings no labels)"

PROTOCOL = {
    "bleu": "lapvqa.metrics.text: corpus BLEU of coco-caption, no smoothing, one reference",
    "bleu_tokenisation": text.TOKENISATION,
    "rouge": f"rouge-score {version('rouge-score')}: F1, mean over samples, its own lower-case "
    "tokens, use_stemmer False",
    "empty_output_policy": "kept: no match and length 0 in BLEU, 0 in ROUGE, no finding asserted",
    "findings": list(labeler.FINDINGS),
    "finding_labeler": "lapvqa.rrg.labeler: rules; only positive assertions count as predicted",
    "finding_f1_macro": "mean over the findings that the truth shows; F1 without a true positive "
    "is 0, F1 of a finding neither true nor predicted is undefined",
}
"""How reports are scored; part of metrics.json."""


@dataclass(frozen=True)
class Reports:
    """One system's reports in the order of their studies; ``truth`` is None where not known."""

    samples: tuple[str, ...]
    patients: tuple[str, ...]
    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    truth: tuple[Set[str] | None, ...]


def measure(predictions: pa.Table) -> Measures:
    """Return the metrics of one system's rows; raises SchemaError for a repeated study."""
    reports = read_reports(predictions)
    references = [text.tokenise(one) for one in reports.references]
    hypotheses = [text.tokenise(one) for one in reports.hypotheses]
    bleu = text.bleu_counts(references, hypotheses)
    rouge = text.rouge_f1(reports.references, reports.hypotheses)
    counts = count_findings(reports)

    def statistic(weights: Array) -> Array:
        by_label = findings.f1_by_label(counts, weights)
        columns = (
            text.corpus_bleu(bleu, weights),
            text.weighted_mean(rouge, weights),
            findings.micro_f1(counts, weights)[:, None],
            findings.macro_f1(counts, weights)[:, None],
            by_label,
        )
        return np.concatenate(columns, axis=1)

    return Measures(
        names=NAMES,
        samples=reports.samples,
        patients=reports.patients,
        statistic=statistic,
        undefined=_undefined(),
    )


def label_curve(predictions: pa.Table) -> tuple[tuple[str | float | None, ...], ...]:
    """Return rows of CURVE_COLUMNS: F1 of each finding under each system."""
    columns = []
    for system in SYSTEMS:
        rows = predictions.filter(pc.equal(predictions["system"], system))
        counts = count_findings(read_reports(rows))
        columns.append(findings.f1_by_label(counts, np.ones((1, len(rows))))[0].tolist())
    values = ([None if np.isnan(one) else one for one in column] for column in columns)
    return tuple(zip(labeler.FINDINGS, *values, strict=True))


def read_reports(predictions: pa.Table) -> Reports:
    """Arrange the rows of one system by study; SchemaError if a study occurs twice."""
    rows = predictions.sort_by("sample")
    samples = tuple(rows["sample"].to_pylist())
    if len(set(samples)) < len(samples):
        raise SchemaError(
            "rrg predictions.parquet: expected one row per study and system, found repeated rows",
            hint="run `lapvqa run --stage evaluate@rrg` again",
        )
    truth = rows["truth"].to_pylist()
    return Reports(
        samples=samples,
        patients=tuple(rows["patient"].to_pylist()),
        references=tuple(rows["reference"].to_pylist()),
        hypotheses=tuple(rows["hypothesis"].to_pylist()),
        truth=tuple(None if labels is None else frozenset(labels) for labels in truth),
    )


def count_findings(reports: Reports) -> findings.FindingCounts:
    """Compare asserted with true findings; a study without truth counts nowhere.

    Where no study has labels the truth is what the references assert (``truth_source``).
    """
    predicted = [labeler.find(one) for one in reports.hypotheses]
    if all(labels is None for labels in reports.truth):
        truth: list[Set[str]] = [labeler.find(one) for one in reports.references]
    else:
        known = [labels is not None for labels in reports.truth]
        truth = [labels or frozenset() for labels in reports.truth]
        predicted = [
            found if is_known else frozenset()
            for found, is_known in zip(predicted, known, strict=True)
        ]
    return findings.finding_counts(truth, predicted, labels=labeler.FINDINGS)


def truth_source(predictions: pa.Table) -> str:
    """Say where the truth of these predictions comes from."""
    return FROM_REFERENCES if _all_null(predictions) else FROM_LABELS


def _all_null(predictions: pa.Table) -> bool:
    return bool(predictions["truth"].null_count == len(predictions))


def _undefined() -> dict[str, str]:
    absent = "no study shows it and no report asserts it"
    return {
        PRIMARY: "no study shows a finding and no report asserts one",
        "finding_f1_macro": "no study shows a finding",
        **{f"finding_f1/{label}": absent for label in labeler.FINDINGS},
    }
