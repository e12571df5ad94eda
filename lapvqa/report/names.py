"""What tasks, systems and metrics are called on the page, and in which order they come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What a reader must know about one evaluation before its numbers.

    ``charted``: families of metrics that its figure shows.
    """

    name: str
    title: str
    about: str
    charted: tuple[str, ...]


TASKS = (
    Task(
        "probe_chexpert",
        "Linear probe, CheXpert-5",
        "A logistic regression per finding on the frozen encoder's features; area under the ROC "
        "curve on patients that neither the encoder nor the probe was trained on. Five findings.",
        ("auc",),
    ),
    Task(
        "probe_nih14",
        "Linear probe, NIH ChestX-ray14",
        "The same probe on the fourteen findings of NIH ChestX-ray14, on its official test list.",
        ("auc",),
    ),
    Task(
        "vqa",
        "Questions about an image",
        "A small decoder over the encoder's tokens answers the questions of "
        "MIMIC-Ext-MIMIC-CXR-VQA. Right is an answer that equals the reference after case, "
        "punctuation and articles are taken away.",
        ("exact_match",),
    ),
    Task(
        "diffvqa",
        "Questions about two images",
        "The same, of MIMIC-Diff-VQA: about an image and the one before it. Many answers are "
        "sentences, so BLEU-4 counts which words they share with the reference.",
        ("bleu1", "bleu2", "bleu3", "bleu4", "rougeL", "exact_match"),
    ),
    Task(
        "rrg",
        "Report generation",
        "A decoder writes the report of a study it never saw: the one that the encoder was "
        "pretrained with, where it was, and a head taught on the frozen encoder's tokens. Finding "
        "F1 compares the findings asserted in the text with those known of the study; BLEU and "
        "ROUGE compare words with the reference report. The baseline answers every study with "
        "the most common training report.",
        ("finding_f1_micro", "finding_f1_macro", "finding_f1", "bleu4", "rougeL"),
    ),
    Task(
        "ad",
        "Detection of findings",
        "A small transformer over the encoder's tokens draws boxes around fourteen findings of "
        "VinDr-CXR. A box is right if it overlaps one of its finding by more than 0.4 (IoU); "
        "images without any finding count.",
        ("ap40",),
    ),
    Task(
        "pg",
        "Grounding of phrases",
        "Given a phrase of a report, a small transformer over the encoder's tokens draws the box "
        "it speaks of (MS-CXR). IoU is the shared area over the area of both boxes.",
        ("miou", "acc25", "acc50", "pointing"),
    ),
)

SYSTEMS = {
    "trained": "trained encoder",
    "untrained": "untrained encoder",
    "head_trained": "head on the trained encoder",
    "head_untrained": "head on the untrained encoder",
    "most_common": "most common report",
}
"""Systems in the order shown. Untrained: the same architecture with its initial weights."""

METRICS = {
    "auc": "AUC",
    "auprc": "AUPRC",
    "brier": "Brier score (lower is better)",
    "ece": "ECE (lower is better)",
    "exact_match": "Exact match",
    "token_f1": "F1 of words",
    "closed_f1": "F1 of yes and no",
    "finding_f1_micro": "Finding F1, micro",
    "finding_f1_macro": "Finding F1, macro",
    "finding_f1": "Finding F1",
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "cider_d": "CIDEr-D (0 to 10)",
    "meteor": "METEOR",
    "ap40": "AP at IoU 0.4",
    "ap50": "AP at IoU 0.5",
    "coco_ap": "AP of COCO",
    "coco_ap50": "AP of COCO at IoU 0.5",
    "miou": "Mean IoU",
    "acc25": "Share with IoU of 0.25 and more",
    "acc50": "Share with IoU of 0.5 and more",
    "pointing": "Share with the centre in a true box",
    "chexbert_f1_micro14": "CheXbert F1, 14 labels, micro",
    "chexbert_f1_macro14": "CheXbert F1, 14 labels, macro",
    "chexbert_f1_micro5": "CheXbert F1, 5 labels, micro",
    "chexbert_f1_macro5": "CheXbert F1, 5 labels, macro",
    "radgraph_simple": "RadGraph F1, simple",
    "radgraph_partial": "RadGraph F1, partial",
    "radgraph_complete": "RadGraph F1, complete",
    "bertscore_precision": "BERTScore, precision",
    "bertscore_recall": "BERTScore, recall",
    "bertscore_f1": "BERTScore, F1",
}
"""Families of metrics in the order shown: a metric without ``mean_`` and without its group."""

ORDER = {name: place for place, name in enumerate(METRICS)}


def family(key: str) -> str:
    """Return the family of a metric: ``auc`` of mean_auc and of auc/Edema."""
    return key.partition("/")[0].removeprefix("mean_")


def metric_name(key: str) -> str:
    """Return the readable name of a metric key: ``AUC, Pleural Thickening``."""
    base, _, group = key.partition("/")
    name = family(key)
    shown = METRICS.get(name, name)
    if base.startswith("mean_"):
        shown = f"Mean {shown}"
    group = group.removeprefix("type:")
    return f"{shown}, {group.replace('_', ' ')}" if group else shown


def short_name(key: str) -> str:
    """Return the name of a metric among others of its family: the group alone, if it has one."""
    _, _, group = key.partition("/")
    return group.removeprefix("type:").replace("_", " ") or metric_name(key)


def system_name(name: str) -> str:
    """Return what a system is called; an encoder's own name stays."""
    return SYSTEMS.get(name, name)
