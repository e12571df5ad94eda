"""Score written reports: metrics of texts, and the F1 of the findings they assert."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa.errors import SchemaError
from lapvqa.evaluation import contract, prediction_rows
from lapvqa.evaluation.task import CurveTable
from lapvqa.metrics.bootstrap import Measures
from lapvqa.metrics.panel import Panel, measures, side_by_side, without
from lapvqa.metrics.texts import finding_f1, ngrams
from lapvqa.metrics.texts.meteor import meteor_panel
from lapvqa.metrics.texts.neural import bertscore_panel, chexbert_panel, radgraph_panel
from lapvqa.metrics.texts.ngrams import text_panel
from lapvqa.params import MetricWeightsParams
from lapvqa.text import labeler
from lapvqa.text.languages import ENGLISH, has_unspaced

Array = NDArray[np.float64]

_REFERENCES_IN = "references_in_"
_FEW = 0.05
"""Share of references in other languages that metrics of English bear."""

_COUNT_WORDS = ("bleu", "cider")
"""Metrics that compare words whatever they mean; of BERTScore the language is its folder's."""

NO_WORDS = "it counts words, and nothing separates those of the references (Chinese, Japanese)"

SYSTEMS = (*prediction_rows.FIRST, "most_common")
CURVE_COLUMNS = ("finding", *SYSTEMS)
PRIMARY = "finding_f1_micro"

BERTSCORE_LAYER = 17
"""The package's choice for roberta-large; a model with fewer layers gives its last."""

FROM_LABELS = (
    "the archive's CheXpert labels: 1 is positive; 0, -1 (uncertain) and blank are not; "
    "studies without labels do not count"
)
FROM_REFERENCES = "the labeler on the reference text (the archive brings no labels)"

PROTOCOL = {
    "bleu": "lapvqa.metrics.text: corpus BLEU of coco-caption, no smoothing, one reference",
    "bleu_tokenisation": ngrams.TOKENISATION,
    "rouge": "lapvqa.metrics.texts.ngrams: F1, mean over samples, lower-case runs of a-z and "
    "digits, no stemmer",
    "empty_output_policy": "kept: no match and length 0 in BLEU, 0 in ROUGE, no finding asserted",
    "findings": list(labeler.FINDINGS),
    "bertscore_layer": f"{BERTSCORE_LAYER}, or the last of a smaller model",
    # A name that stands in results that were written; it stays where the code moves.
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


@dataclass(frozen=True)
class Weights:
    """Folders of ``lapvqa.metrics.weights``; None: the metric is not computed."""

    chexbert: Path | None = None
    radgraph: Path | None = None
    bertscore: Path | None = None


NO_WEIGHTS = Weights()


def find_weights(params: MetricWeightsParams, root: Path) -> Weights:
    """Return the folders that the parameters name; relative ones are below ``root``."""
    return Weights(
        **{name: root / path for name, path in params.model_dump().items() if path is not None}
    )


def measure(predictions: pa.Table, *, weights: Weights = NO_WEIGHTS) -> Measures:
    """Return the metrics of one system's rows.

    Of references in other languages than English those that read English are not computed. Raises
    SchemaError for a repeated study, ConfigError for an incomplete folder of weights.
    """
    reports = read_reports(predictions)
    texts = reports.references, reports.hypotheses
    panel = side_by_side(
        text_panel(*texts),
        findings_panel(count_findings(reports)),
        meteor_panel(*texts),
        chexbert_panel(*texts, weights=weights.chexbert),
        radgraph_panel(*texts, weights=weights.radgraph),
        bertscore_panel(
            *texts, weights=weights.bertscore, num_layers=_bertscore_layer(weights.bertscore)
        ),
    )
    foreign = why_not_english(predictions)
    if foreign:
        panel = without(panel, filter(_reads_english, panel.names), foreign)
    if sum(map(has_unspaced, reports.references)) > _FEW * len(reports.references):
        panel = without(panel, filter(_counts_words, panel.names), NO_WORDS)
    return measures(panel, samples=reports.samples, patients=reports.patients)


def describe_languages(numbers: Mapping[str, int]) -> dict[str, int]:
    """Return the part of the protocol that says in which languages the references are."""
    return {f"{_REFERENCES_IN}{code}": number for code, number in numbers.items()}


def why_not_english(predictions: pa.Table) -> str:
    """Return why metrics that read English have no value here; "" where the references are English.

    By the protocol in the table's metadata; without one they are taken to be.
    """
    protocol = contract.protocol_of(predictions)
    numbers = {
        key.removeprefix(_REFERENCES_IN): number
        for key, number in protocol.items()
        if key.startswith(_REFERENCES_IN)
    }
    other = {code: number for code, number in numbers.items() if code != ENGLISH}
    if sum(other.values()) <= _FEW * sum(numbers.values()):
        return ""
    said = ", ".join(f"{number} {code}" for code, number in other.items())
    return f"it reads English; of {sum(numbers.values())} references are not: {said}"


def _reads_english(metric: str) -> bool:
    return not metric.startswith((*_COUNT_WORDS, "bertscore"))


def _counts_words(metric: str) -> bool:
    return metric.startswith(_COUNT_WORDS)


def findings_panel(counts: finding_f1.FindingCounts) -> Panel:
    """Return finding_f1_micro, finding_f1_macro and finding_f1/<finding>."""

    def statistic(weights: Array) -> Array:
        return np.column_stack(
            [
                finding_f1.micro_f1(counts, weights),
                finding_f1.macro_f1(counts, weights),
                finding_f1.f1_by_label(counts, weights),
            ]
        )

    absent = "no study shows it and no report asserts it"
    by_finding = [f"finding_f1/{label}" for label in counts.labels]
    return Panel(
        names=(PRIMARY, "finding_f1_macro", *by_finding),
        statistic=statistic,
        undefined={
            PRIMARY: "no study shows a finding and no report asserts one",
            "finding_f1_macro": "no study shows a finding",
            **dict.fromkeys(by_finding, absent),
        },
    )


def curves(predictions: pa.Table) -> CurveTable:
    """Return the F1 of each finding, a column per system."""

    foreign = why_not_english(predictions)

    def f1_of_findings(rows: pa.Table) -> list[float]:
        if foreign:
            return [math.nan] * len(labeler.FINDINGS)
        counts = count_findings(read_reports(rows))
        values: list[float] = finding_f1.f1_by_label(counts, np.ones((1, len(rows))))[0].tolist()
        return values

    return prediction_rows.curves(
        predictions,
        f1_of_findings,
        across=CURVE_COLUMNS[0],
        points=labeler.FINDINGS,
    )


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


def count_findings(reports: Reports) -> finding_f1.FindingCounts:
    """Compare asserted with true findings; a study without truth counts nowhere.

    Where no study has labels the truth is what the references assert (``truth_source``).
    """
    predicted = [labeler.find(text) for text in reports.hypotheses]
    if all(labels is None for labels in reports.truth):
        truth: list[Set[str]] = [labeler.find(text) for text in reports.references]
    else:
        known = [labels is not None for labels in reports.truth]
        truth = [labels or frozenset() for labels in reports.truth]
        predicted = [
            asserted if is_known else frozenset()
            for asserted, is_known in zip(predicted, known, strict=True)
        ]
    return finding_f1.finding_counts(truth, predicted, labels=labeler.FINDINGS)


def truth_source(predictions: pa.Table) -> str:
    """Say where the truth of these predictions comes from."""
    return FROM_REFERENCES if _all_null(predictions) else FROM_LABELS


def _all_null(predictions: pa.Table) -> bool:
    return bool(predictions["truth"].null_count == len(predictions))


def _bertscore_layer(weights: Path | None) -> int:
    """Return the layer to compare: BERTSCORE_LAYER, or the last of a smaller model."""
    config = None if weights is None else weights / "config.json"
    if config is None or not config.exists():
        return BERTSCORE_LAYER  # bertscore_panel says what is missing
    return min(BERTSCORE_LAYER, int(json.loads(config.read_text())["num_hidden_layers"]))
