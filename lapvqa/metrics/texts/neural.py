"""Metrics that need neural weights: CheXbert, RadGraph and BERTScore, from a local folder.

Each runs when the folder is given (params.yaml) and its package is installed; otherwise its
metrics are null with the reason. Nothing is downloaded: the folder must be complete, and the
packages run with it as the working directory, where they find models by their relative names.

Folders
    CheXbert    chexbert.pth; bert-base-uncased/ (config.json, vocab.txt)
    RadGraph    <model_type>/ (config.json, vocabulary/, weights.th); the BERT that config.json
                names, as a folder of that name
    BERTScore   a transformers model and its tokenizer

A text that is empty on either side is not given to a model: it scores 0 (RadGraph's own rule),
and CheXbert finds nothing in it. Each distinct text or pair is scored once.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from lapvqa.errors import ConfigError
from lapvqa.metrics.bootstrap import Array
from lapvqa.metrics.panel import Panel, not_computed, weighted_mean
from lapvqa.metrics.texts.finding_f1 import FindingCounts, finding_counts, macro_f1, micro_f1

NOT_GIVEN = "not computed: weights not given"

BERTSCORE_NAMES = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
RADGRAPH_NAMES = ("radgraph_simple", "radgraph_partial", "radgraph_complete")
CHEXBERT_NAMES = (
    "chexbert_f1_micro14", "chexbert_f1_macro14", "chexbert_f1_micro5", "chexbert_f1_macro5",
)  # fmt: skip

CHEXBERT_LABELS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices", "No Finding",
)  # fmt: skip
"""In the order of CheXbert's heads."""

CHEXBERT_FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")

Pair = tuple[str, str]

_MAX_TOKENS = 512
_SHOWN = (1, 3)


def bertscore_panel(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    weights: Path | None,
    num_layers: int,
) -> Panel:
    """Return BERTScore's precision, recall and F1, mean over samples; no idf, no rescaling.

    ``num_layers``: the layer whose embeddings are compared (17 of roberta-large is the package's
    choice for English). Raises ConfigError for an incomplete folder.
    """
    why = _why_not(weights, "bert_score")
    if why or weights is None:
        return not_computed(BERTSCORE_NAMES, why)
    _require(weights, "config.json")

    def score(pairs: Sequence[Pair]) -> Array:
        package = importlib.import_module("bert_score")
        with _inside(weights):
            scores = package.score(
                [hypothesis for _, hypothesis in pairs],
                [reference for reference, _ in pairs],
                model_type=".",
                num_layers=num_layers,
                device="cpu",
            )
        return np.column_stack([values.numpy() for values in scores]).astype(np.float64)

    values = _of_pairs(references, hypotheses, score, num_values=len(BERTSCORE_NAMES))
    return _means(BERTSCORE_NAMES, values)


def radgraph_panel(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    weights: Path | None,
    model_type: str = "radgraph-xl",
) -> Panel:
    """Return RadGraph F1 of entities, entities with relations, and complete; means over samples.

    Raises ConfigError for an incomplete folder.
    """
    why = _why_not(weights, "radgraph")
    if why or weights is None:
        return not_computed(RADGRAPH_NAMES, why)
    for file in ("config.json", "weights.th", "vocabulary"):
        _require(weights, f"{model_type}/{file}")

    def score(pairs: Sequence[Pair]) -> Array:
        package = importlib.import_module("radgraph")
        with _inside(weights):
            scorer = package.F1RadGraph(
                reward_level="all", model_type=model_type, model_cache_dir=".",
                cuda=-1,  # like the others: it would take the first GPU, whichever is ours
            )  # fmt: skip
            _, rewards, _, _ = scorer(
                refs=[reference for reference, _ in pairs], hyps=[written for _, written in pairs]
            )
        return np.column_stack(rewards).astype(np.float64)

    values = _of_pairs(references, hypotheses, score, num_values=len(RADGRAPH_NAMES))
    return _means(RADGRAPH_NAMES, values)


def chexbert_panel(
    references: Sequence[str], hypotheses: Sequence[str], *, weights: Path | None
) -> Panel:
    """Return F1 of CheXbert's labels on both texts: micro and macro over 14 and over 5 labels.

    Uncertain counts as positive (f1chexbert's rule). Macro is over the labels that the references
    show; f1chexbert counts the others as 0. Raises ConfigError for an incomplete folder.
    """
    why = _why_not(weights, "f1chexbert")
    if why or weights is None:
        return not_computed(CHEXBERT_NAMES, why)
    for file in ("chexbert.pth", "bert-base-uncased/config.json", "bert-base-uncased/vocab.txt"):
        _require(weights, file)
    label = _chexbert_labels(weights, {*references, *hypotheses})
    counts = [
        finding_counts(
            [label[text] for text in references],
            [label[text] for text in hypotheses],
            labels=labels,
        )
        for labels in (CHEXBERT_LABELS, CHEXBERT_FIVE)
    ]

    def statistic(draws: Array) -> Array:
        return np.column_stack([score(of_labels, draws) for of_labels in counts for score in _F1S])

    absent = "no report of either side shows a label"
    return Panel(
        names=CHEXBERT_NAMES,
        statistic=statistic,
        undefined=dict.fromkeys(CHEXBERT_NAMES, absent),
    )


_F1S: tuple[Callable[[FindingCounts, Array], Array], ...] = (micro_f1, macro_f1)


def _chexbert_labels(weights: Path, texts: Set[str]) -> dict[str, Set[str]]:
    package: Any = importlib.import_module("f1chexbert.f1chexbert")
    with _inside(weights), contextlib.ExitStack() as after:
        after.callback(setattr, package, "CACHE_DIR", package.CACHE_DIR)
        package.CACHE_DIR = "."
        labeler = package.F1CheXbert(device="cpu")
        return {
            text: _labels_of(labeler, text) if text.strip() else frozenset()
            for text in sorted(texts)
        }


def _labels_of(labeler: Any, text: str) -> Set[str]:
    """Label one text as f1chexbert's get_label does, whose tokeniser call transformers 5 dropped.

    Heads of four: 0 no word, 1 positive, 2 negative, 3 uncertain; No Finding: 1 is yes.
    """
    tokens = labeler.tokenizer(
        " ".join(text.split()), truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
    )
    heads = labeler.model(tokens["input_ids"], tokens["attention_mask"])
    classes = [int(head.argmax(dim=1).item()) for head in heads]
    return {name for name, state in zip(CHEXBERT_LABELS, classes, strict=True) if state in _SHOWN}


def _why_not(weights: Path | None, package: str) -> str:
    """Return why nothing is computed, empty if it can be."""
    if weights is None:
        return NOT_GIVEN
    if importlib.util.find_spec(package) is None:
        return f"not computed: {package} not installed"
    return ""


def _require(weights: Path, file: str) -> None:
    if not (weights / file).exists():
        raise ConfigError(
            f"weights folder {weights.name}: expected {file}, found none",
            hint="complete the folder (lapvqa.metrics.texts.neural lists the files), or unset its "
            "path",
        )


@contextlib.contextmanager
def _inside(weights: Path) -> Any:
    """Work in the folder, what the packages print going nowhere; not for threads."""
    with contextlib.chdir(weights), contextlib.redirect_stdout(io.StringIO()):
        yield


def _of_pairs(
    references: Sequence[str],
    hypotheses: Sequence[str],
    score: Callable[[Sequence[Pair]], Array],
    *,
    num_values: int,
) -> Array:
    """Score each distinct pair once: [n, num_values]; 0 where a text is empty."""
    pairs = list(zip(references, hypotheses, strict=True))
    distinct = sorted({pair for pair in pairs if pair[0].strip() and pair[1].strip()})
    known = dict(zip(distinct, score(distinct), strict=True)) if distinct else {}
    zero = np.zeros(num_values)
    return np.array([known.get(pair, zero) for pair in pairs]).reshape(-1, num_values)


def _means(names: tuple[str, ...], values: Array) -> Panel:
    def statistic(draws: Array) -> Array:
        return weighted_mean(values, draws)

    return Panel(names=names, statistic=statistic)
