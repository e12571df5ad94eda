"""The text metrics that need no weights and no Java, as one panel: BLEU, ROUGE, CIDEr-D."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lapvqa.metrics import text
from lapvqa.metrics.bootstrap import Array
from lapvqa.metrics.cider import cider_d
from lapvqa.metrics.panel import Panel

BLEU_NAMES = tuple(f"bleu{order}" for order in range(1, text.MAX_ORDER + 1))


def text_panel(references: Sequence[str], hypotheses: Sequence[str]) -> Panel:
    """Return bleu1..bleu4, rouge1, rouge2, rougeL and cider_d of texts with one reference each.

    BLEU and CIDEr-D have the tokens of ``text.tokenise``, ROUGE its library's.
    """
    expected = [text.tokenise(one) for one in references]
    found = [text.tokenise(one) for one in hypotheses]
    counts = text.bleu_counts(expected, found)
    means = np.column_stack([text.rouge_f1(references, hypotheses), cider_d(expected, found)])

    def statistic(weights: Array) -> Array:
        return np.column_stack(
            [text.corpus_bleu(counts, weights), text.weighted_mean(means, weights)]
        )

    return Panel(names=(*BLEU_NAMES, *text.ROUGE_TYPES, "cider_d"), statistic=statistic)
