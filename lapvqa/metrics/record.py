"""How each metric is computed, in words: all that a reader must know to compare a number.

``describe`` gives the records of the metrics that a result holds, for the protocol of
metrics.json. Names are looked up without their group: ``auc/Edema`` and ``mean_auc`` are ``auc``.

Names such as ``lapvqa.metrics.auc`` stand in results that were written; they name implementations
and stay where code moves. ``classification`` has auc, average_precision and calibration, ``boxes``
has detection (``voc``) and grounding, ``texts`` has text and cider (``ngrams``), findings and
answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

OWN = "lapvqa"
NO_TEXT = "none: not a text metric"

# The words of the modules that compute, repeated: this record is read by every evaluation, and
# none should depend on the metrics of another. Tests compare the two.
_TOKENS = "lower case; runs of letters, digits and underscores, every other sign alone"
_ANSWERS = "lower case, ASCII punctuation removed, articles a/an/the removed, white space collapsed"
_BINS = "15 of equal width: [0, 1/15], (1/15, 2/15], ..."


@dataclass(frozen=True, kw_only=True)
class Definition:
    """How a metric is computed; ``package`` is the distribution whose version is recorded."""

    implementation: str
    package: str
    tokenisation: str
    empty_output: str
    undefined: str


@dataclass(frozen=True, kw_only=True)
class MetricRecord(Definition):
    """A Definition with what was found: the package's version (None: absent), items scored."""

    version: str | None
    num_items: int


_ONE_CLASS = "null without positives or without negatives; not in the mean"
_NEVER = "never"
_NO_SCORE = "a sample without a score is refused"
_CHEXBERT = Definition(
    implementation="f1chexbert's labeler on both texts; uncertain is positive; micro, and macro "
    "over the labels that the references show",
    package="f1chexbert",
    tokenisation="bert-base-uncased, lower case, cut at 512 tokens",
    empty_output="no label is shown",
    undefined="null without weights or package; null if neither side shows a label",
)
_PERCENT = "IoU {} 0.{}; equal scores are one threshold; area under the precision envelope"


def _text(implementation: str, package: str, tokenisation: str, empty: str) -> Definition:
    return Definition(
        implementation=implementation, package=package, tokenisation=tokenisation,
        empty_output=empty, undefined=_NEVER,
    )  # fmt: skip


def _classes(implementation: str, undefined: str) -> Definition:
    return Definition(
        implementation=implementation, package=OWN, tokenisation=NO_TEXT,
        empty_output=_NO_SCORE, undefined=undefined,
    )  # fmt: skip


def _boxes(implementation: str, package: str) -> Definition:
    return Definition(
        implementation=implementation, package=package, tokenisation=NO_TEXT,
        empty_output="an image without found boxes counts, its true boxes are missed",
        undefined="null for a class without a true box; not in the mean",
    )  # fmt: skip


def _grounding(implementation: str) -> Definition:
    return Definition(
        implementation=f"lapvqa.metrics.grounding: {implementation}", package=OWN,
        tokenisation=NO_TEXT, empty_output="no box: IoU 0, a miss", undefined=_NEVER,
    )  # fmt: skip


def _ranks(implementation: str) -> Definition:
    return Definition(
        implementation=f"lapvqa.retrieval: {implementation}, films to reports and back; ties are "
        "the middle of their places",
        package=OWN, tokenisation="GPT-2's, small letters", empty_output=_NO_SCORE,
        undefined=_NEVER,
    )  # fmt: skip


_BLEU = _text(
    "lapvqa.metrics.text: corpus BLEU of coco-caption, one reference, no smoothing", OWN,
    _TOKENS, "kept: length 0, no match",
)  # fmt: skip
_ROUGE = _text(
    "lapvqa.metrics.texts.ngrams: F1, mean over samples, no stemmer", OWN,
    "lower case; runs of a-z and digits", "kept: 0",
)  # fmt: skip
_FINDINGS = Definition(
    implementation="lapvqa.metrics.findings: F1 of the findings that a report asserts (the "
    "labeler is in the protocol); macro over the findings that the truth shows",
    package=OWN, tokenisation="the labeler's", empty_output="kept: asserts no finding",
    undefined="null for a finding neither true nor asserted; not in the mean",
)  # fmt: skip
_BERTSCORE = Definition(
    implementation="bert_score: mean over samples, no idf, no rescaling; layer as given",
    package="bert_score", tokenisation="the given model's own",
    empty_output="kept: 0", undefined="null without weights or package",
)  # fmt: skip
_RADGRAPH = Definition(
    implementation="radgraph F1RadGraph, reward_level all (simple, partial, complete), mean over "
    "samples; model_type as given",
    package="radgraph", tokenisation="radgraph's own",
    empty_output="kept: 0", undefined="null without weights or package",
)  # fmt: skip

DEFINITIONS: dict[str, Definition] = {
    "auc": _classes("lapvqa.metrics.auc: Mann-Whitney AUROC, ties count half", _ONE_CLASS),
    "auprc": _classes(
        "lapvqa.metrics.average_precision: average precision, not interpolated", _ONE_CLASS
    ),
    "brier": _classes("lapvqa.metrics.calibration: Brier score", "null without known values"),
    "ece": _classes(
        f"lapvqa.metrics.calibration: expected calibration error, bins {_BINS}",
        "null without known values",
    ),
    **{f"bleu{order}": _BLEU for order in range(1, 5)},
    **dict.fromkeys(("rouge1", "rouge2", "rougeL"), _ROUGE),
    "cider_d": _text(
        "lapvqa.metrics.cider: CIDEr-D of coco-caption, document frequencies of the evaluated "
        "references, mean over samples",
        OWN, _TOKENS, "kept: 0",
    ),
    **dict.fromkeys(("finding_f1", "finding_f1_micro", "finding_f1_macro"), _FINDINGS),
    "meteor": Definition(
        implementation="METEOR 1.5 jar of pycocoevalcap, English, corpus value",
        package="pycocoevalcap", tokenisation="the jar's -norm: lower case",
        empty_output="kept: matches nothing", undefined="null without Java or the package",
    ),
    **dict.fromkeys(
        ("bertscore_precision", "bertscore_recall", "bertscore_f1"), _BERTSCORE
    ),
    **dict.fromkeys(("radgraph_simple", "radgraph_partial", "radgraph_complete"), _RADGRAPH),
    **dict.fromkeys(
        (
            "chexbert_f1_micro14", "chexbert_f1_macro14",
            "chexbert_f1_micro5", "chexbert_f1_macro5",
        ),
        _CHEXBERT,
    ),
    "exact_match": Definition(
        implementation="lapvqa.metrics.answers: equal after normalisation", package=OWN,
        tokenisation=_ANSWERS, empty_output="kept: right only if the reference is "
        "empty too", undefined="null for a group without questions",
    ),
    "token_f1": Definition(
        implementation="lapvqa.metrics.answers: SQuAD's F1 of words", package=OWN,
        tokenisation=_ANSWERS, empty_output="kept: 0, 1 if both are empty",
        undefined="null for a group without questions",
    ),
    "closed_f1": Definition(
        implementation="lapvqa.metrics.answers: F1 of yes and of no among closed questions",
        package=OWN, tokenisation=_ANSWERS, empty_output="kept: a miss",
        undefined="null for an answer neither true nor given; not in the mean",
    ),
    "mrr": _ranks("mean of 1 / rank"),
    **{f"recall{k}": _ranks(f"share of ranks up to {k}") for k in (1, 5, 10)},
    "ap40": _boxes(f"lapvqa.metrics.detection: {_PERCENT.format('above', 4)}", OWN),
    "ap50": _boxes(f"lapvqa.metrics.detection: {_PERCENT.format('at least', 5)}", OWN),
    "coco_ap": _boxes(
        "pycocotools: IoU 0.50:0.95, 101 recalls, at most 100 boxes, all sizes", "pycocotools"
    ),
    "coco_ap50": _boxes("pycocotools: IoU 0.50, 101 recalls, at most 100 boxes", "pycocotools"),
    "miou": _grounding("mean IoU over phrases; several true boxes by the rule in the protocol"),
    "acc25": _grounding("share of phrases with IoU >= 0.25"),
    "acc50": _grounding("share of phrases with IoU >= 0.5"),
    "pointing": _grounding("share of predicted centres inside a true box, edges included"),
}  # fmt: skip


def describe(names: Iterable[str], *, num_items: int) -> dict[str, dict[str, str | int | None]]:
    """Return metric -> its record, for every metric among ``names``, once each.

    Raises KeyError for a metric without a definition: no number goes out undescribed.
    """
    metrics = dict.fromkeys(base_name(name) for name in names)
    return {
        metric: asdict(
            MetricRecord(
                **asdict(DEFINITIONS[metric]),
                version=_version(DEFINITIONS[metric].package),
                num_items=num_items,
            )
        )
        for metric in metrics
    }


def base_name(name: str) -> str:
    """Return the metric of a name: without its group and without ``mean_``."""
    return name.split("/", 1)[0].removeprefix("mean_")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
