"""Write golden.json: what other implementations say about made-up texts and scores.

    python tests/metrics/make_golden.py

Needs Java, pycocoevalcap 1.2 (BLEU, CIDEr, METEOR; `pip install --no-deps`) and mlstatkit 0.1.91
(DeLong). The tests read the file and need none of them.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden.json"

_WORDS = (
    "no the left right lung is are clear small large pleural effusion effusions heart size normal "
    "enlarged acute process opacity in and of there unchanged seen . , pneumothorax edema mild"
)


def pairs(seed: int = 0, number: int = 40) -> list[tuple[str, str]]:
    """Return references and hypotheses: by hand, then references with words changed or dropped."""
    made = [
        ("yes", "yes"),
        ("no", "yes"),
        ("the heart is enlarged .", "the heart is enlarged ."),
        ("there is a small left pleural effusion", "small pleural effusion on the left"),
        ("lungs are clear", "the lung is clear and clear and clear"),
        ("no acute process", ""),
        ("no pneumothorax is seen in the right lung .", "pneumothorax"),
    ]
    rng = np.random.default_rng(seed)
    while len(made) < number:
        reference = rng.choice(_WORDS.split(), rng.integers(1, 25)).tolist()
        changed = [w if rng.random() < 0.7 else str(rng.choice(_WORDS.split())) for w in reference]
        kept = [word for word in changed if rng.random() < 0.9]
        made.append((" ".join(reference), " ".join(kept)))
    return made


def text_metrics(made: list[tuple[str, str]]) -> dict[str, object]:
    """Return what pycocoevalcap gives, corpus and items, texts split at spaces."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor

    references = {index: [pair[0]] for index, pair in enumerate(made)}
    hypotheses = {index: [pair[1]] for index, pair in enumerate(made)}
    found = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for name, scorer in (("bleu", Bleu(4)), ("cider", Cider()), ("meteor", Meteor())):
            corpus, items = scorer.compute_score(references, hypotheses)
            found[name] = {"corpus": _plain(corpus), "items": _plain(items)}
    return found


def meteor_jar_counts(made: list[tuple[str, str]]) -> list[list[float]]:
    """Return the jar's counts of each pair, whole matches without chunks."""
    from lapvqa.metrics.texts.meteor import meteor_counts, meteor_jar

    return meteor_counts(*zip(*made, strict=True), jar=meteor_jar()).tolist()


def delong(seed: int = 1) -> dict[str, object]:
    """Return two systems' scores with ties, and mlstatkit's z and p (second minus first)."""
    from MLstatkit import Delong_test

    rng = np.random.default_rng(seed)
    targets = (rng.random(80) < 0.4).astype(int)
    first = np.round(targets * 0.8 + rng.normal(size=80), 1)
    second = np.round(0.6 * first + targets * 0.3 + rng.normal(scale=0.7, size=80), 1)
    z, p = Delong_test(targets, first, second, return_ci=False, return_auc=False)[:2]
    return {
        "targets": targets.tolist(),
        "first": first.tolist(),
        "second": second.tolist(),
        "z": float(z),
        "p": float(p),
    }


def _plain(values: object) -> object:
    return np.asarray(values, dtype=np.float64).tolist()


if __name__ == "__main__":
    made = pairs()
    golden = {
        "pairs": made,
        **text_metrics(made),
        "meteor_counts": meteor_jar_counts(made),
        "delong": delong(),
    }
    GOLDEN.write_text(json.dumps(golden) + "\n")
