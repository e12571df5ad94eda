"""Short answers: exact match and token F1, closed and open questions and each type apart.

Normalisation and token F1 are SQuAD's (Rajpurkar et al., EMNLP 2016): lower case, ASCII
punctuation removed, the articles a, an and the removed, white space collapsed; F1 of the two bags
of words. Two answers that are both empty then are equal and have F1 1, one empty alone has 0
(SQuAD 2.0's rule). A question is closed if its reference is yes or no.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lapvqa.metrics.bootstrap import Array
from lapvqa.metrics.panel import Panel, weighted_ratio
from lapvqa.metrics.texts.finding_f1 import f1_by_label, finding_counts, macro_f1

NORMALISATION = (
    "lower case, ASCII punctuation removed, articles a/an/the removed, white space collapsed"
)
CLOSED_ANSWERS = ("yes", "no")
MATCHES = ("exact_match", "token_f1")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

_KNOWN = 1 << 16
"""Answers, and pairs of them, whose outcome is kept: most are yes, no, or one of a few words."""


@lru_cache(maxsize=_KNOWN)
def normalise(answer: str) -> str:
    """Return the answer as it is compared: see ``NORMALISATION``."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(reference: str, answer: str) -> float:
    """Return 1 if both are one answer after normalisation, else 0."""
    return float(normalise(reference) == normalise(answer))


@lru_cache(maxsize=_KNOWN)
def token_f1(reference: str, answer: str) -> float:
    """Return F1 of the words of the two normalised answers, each as often as it occurs."""
    expected, given = normalise(reference).split(), normalise(answer).split()
    if not expected or not given:
        return float(expected == given)
    shared = (Counter(expected) & Counter(given)).total()
    return 2 * shared / (len(expected) + len(given))


def is_closed(reference: str) -> bool:
    """Return whether the reference is a yes or a no."""
    return normalise(reference) in CLOSED_ANSWERS


def answers_panel(
    references: Sequence[str], answers: Sequence[str], *, types: Sequence[str]
) -> Panel:
    """Return exact_match and token_f1 over all, /closed, /open and /type:<t>, and closed F1.

    closed_f1/yes and closed_f1/no are the F1 of that answer among closed questions, closed_f1
    their mean; an answer that is neither is a miss. ``types``: the type of each question.
    """
    pairs = list(zip(references, answers, strict=True))
    values = np.array([[exact_match(*pair), token_f1(*pair)] for pair in pairs])
    values = values.reshape(-1, len(MATCHES))
    groups = _groups(references, types)
    closed = groups["closed"]
    kinds = finding_counts(
        [_answer_set(reference) for reference in references],
        [
            _answer_set(a) if is_asked else set()
            for a, is_asked in zip(answers, closed, strict=True)
        ],
        labels=CLOSED_ANSWERS,
    )

    members = np.column_stack(list(groups.values())).astype(np.float64)
    sums = np.column_stack([member[:, None] * values for member in members.T])
    sizes = np.repeat(members, len(MATCHES), axis=1)

    def statistic(weights: Array) -> Array:
        means = weighted_ratio(weights @ sums, weights @ sizes)
        return np.column_stack([means, macro_f1(kinds, weights), f1_by_label(kinds, weights)])

    names = [metric + _suffix(group) for group in groups for metric in MATCHES]
    closed_names = ("closed_f1", *(f"closed_f1/{answer}" for answer in CLOSED_ANSWERS))
    return Panel(
        names=(*names, *closed_names),
        statistic=statistic,
        undefined={
            **_empty_groups(groups),
            "closed_f1": "no closed question",
            **{f"closed_f1/{answer}": f"no closed answer is {answer}" for answer in CLOSED_ANSWERS},
        },
    )


def _groups(references: Sequence[str], types: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    if len(types) != len(references):
        raise ValueError(f"{len(references)} references, but {len(types)} question types")
    closed = np.array([is_closed(reference) for reference in references], dtype=bool)
    kinds = np.array(types, dtype=object)
    by_type = {f"type:{kind}": kinds == kind for kind in sorted(set(types))}
    return {"": np.ones(len(closed), dtype=bool), "closed": closed, "open": ~closed, **by_type}


def _suffix(group: str) -> str:
    return f"/{group}" if group else ""


def _empty_groups(groups: dict[str, NDArray[np.bool_]]) -> dict[str, str]:
    empty = [group for group, members in groups.items() if not members.any()]
    return {
        metric + _suffix(group): f"no {group} question" for group in empty for metric in MATCHES
    }


def _answer_set(answer: str) -> set[str]:
    return {normalise(answer)} & set(CLOSED_ANSWERS)
