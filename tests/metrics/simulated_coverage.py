"""How often do 95 % intervals cover? Studies drawn from a population whose value is known.

    python tests/metrics/simulated_coverage.py [studies] [patients]

A population of 20,000 patients with one to four samples each, alike within a patient; its value of
every metric is the truth. A study draws patients from it, and its interval covers or does not.
"By sample" resamples samples as if each were a patient: what the clusters are for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lapvqa.metrics.bootstrap import draw_values, interval
from lapvqa.metrics.boxes.voc import FoundBoxes, TrueBoxes, detection_panel
from lapvqa.metrics.classification import auprc_panel, auroc_panel, calibration_panel
from lapvqa.metrics.paired import delong_test
from lapvqa.metrics.panel import Panel, side_by_side, weighted_mean
from lapvqa.metrics.texts.ngrams import bleu_counts, corpus_bleu, rouge_f1
from lapvqa.metrics.texts.short_answers import answers_panel

PATIENTS, DRAWS, CONFIDENCE = 20_000, 1_000, 0.95
TEXTS = 4_000


@dataclass(frozen=True)
class Population:
    """``patient`` of each sample [n]; ``panel(rows)`` measures the samples of a study."""

    patient: np.ndarray
    panel: Callable[[np.ndarray], Panel]
    kept: tuple[str, ...]

    def truth(self) -> np.ndarray:
        rows = np.arange(len(self.patient))
        panel = self.panel(rows)
        values = panel.statistic(np.ones((1, len(rows))))[0]
        return values[[panel.names.index(name) for name in self.kept]]


def patients_of(generator: np.random.Generator, number: int) -> np.ndarray:
    """Return the patient of each sample: one to four samples each."""
    return np.repeat(np.arange(number), generator.integers(1, 5, number))


def scores(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return patients, targets [n] and two systems' probabilities [n, 2]."""
    patient = patients_of(generator, PATIENTS)
    targets = (generator.random(PATIENTS) < 0.3)[patient].astype(np.int8)
    person = generator.normal(size=(PATIENTS, 1))[patient]
    noise = generator.normal(scale=0.7, size=(len(patient), 2))
    logits = -1 + targets[:, None] * np.array([1.3, 1.0]) + person + noise
    return patient, targets, 1 / (1 + np.exp(-logits))


def classes(generator: np.random.Generator) -> Population:
    """AUROC, AUPRC, Brier and the paired difference of two AUROCs."""
    patient, targets, given = scores(generator)

    def panel(rows: np.ndarray) -> Panel:
        target, own = targets[rows, None], given[rows]
        first, second = (auroc_panel(target, own[:, [k]], labels=("a",)) for k in (0, 1))
        difference = Panel(
            names=("auc difference",),
            statistic=lambda w: first.statistic(w)[:, :1] - second.statistic(w)[:, :1],
        )
        return side_by_side(
            first,
            auprc_panel(target, own[:, [0]], labels=("a",)),
            calibration_panel(target, own[:, [0]], labels=("a",)),
            difference,
        )

    return Population(patient, panel, ("auc/a", "auprc/a", "brier/a", "auc difference"))


def answers(generator: np.random.Generator) -> Population:
    """Exact match and the F1 of yes and no; a patient's questions are hard or easy together."""
    patient = patients_of(generator, PATIENTS)
    right = generator.random(len(patient)) < generator.beta(1.5, 1, PATIENTS)[patient]
    truth = np.where(generator.random(len(patient)) < 0.4, "yes", "no")
    given = np.where(right, truth, np.where(truth == "yes", "no", "yes"))

    def panel(rows: np.ndarray) -> Panel:
        return answers_panel(truth[rows], given[rows], types=["t"] * len(rows))

    return Population(patient, panel, ("exact_match", "closed_f1"))


def texts(generator: np.random.Generator) -> Population:
    """Corpus BLEU-4 and ROUGE-L; a patient's reports are written well or badly together."""
    patient = patients_of(generator, TEXTS)
    words = np.array([f"w{i}" for i in range(40)])
    skill = generator.beta(6, 2, TEXTS)[patient]
    references = [generator.choice(words, generator.integers(5, 20)) for _ in patient]
    hypotheses = [
        np.where(generator.random(len(one)) < good, one, generator.choice(words, len(one)))
        for one, good in zip(references, skill, strict=True)
    ]
    counts = bleu_counts([one.tolist() for one in references], [h.tolist() for h in hypotheses])
    rouge = rouge_f1([" ".join(one) for one in references], [" ".join(h) for h in hypotheses])

    def panel(rows: np.ndarray) -> Panel:
        own = type(counts)(
            counts.correct[rows], counts.guessed[rows],
            counts.hypothesis_length[rows], counts.reference_length[rows],
        )  # fmt: skip
        return Panel(
            names=("bleu4", "rougeL"),
            statistic=lambda w: np.column_stack(
                [corpus_bleu(own, w)[:, 3], weighted_mean(rouge[rows][:, [2]], w)]
            ),
        )

    return Population(patient, panel, ("bleu4", "rougeL"))


def boxes(generator: np.random.Generator) -> Population:
    """mAP@0.4 of one class: half the images healthy, three true boxes at most, some found."""
    patient = patients_of(generator, TEXTS)
    person = generator.normal(size=TEXTS)[patient]
    true, found = [], []
    for image in range(len(patient)):
        for place in range(generator.integers(1, 4)) if person[image] > 0 else ():
            true.append((image, place * 10, 0, place * 10 + 8, 8))
            if generator.random() < 0.7:
                found.append((image, place * 10, 0, place * 10 + 8, 8, generator.normal(1.2)))
        for place in range(generator.poisson(0.5 + 0.5 * (person[image] < -0.5))):
            found.append((image, place * 10, 50, place * 10 + 8, 58, generator.normal()))
    truth, guess = np.array(true), np.array(found)
    true_of, found_of = ([np.flatnonzero(one[:, 0] == i) for i in range(len(patient))]
                         for one in (truth, guess))  # fmt: skip

    def panel(rows: np.ndarray) -> Panel:
        pairs = []
        for table, of in ((truth, true_of), (guess, found_of)):
            index = np.concatenate([of[row] for row in rows])
            image = np.repeat(np.arange(len(rows)), [len(of[row]) for row in rows])
            pairs.append((image, np.zeros(len(index), dtype=int), table[index]))
        (image, label, one), (found_image, found_label, other) = pairs
        return detection_panel(
            TrueBoxes(image, label, one[:, 1:5]),
            FoundBoxes(found_image, found_label, other[:, 1:5], other[:, 5]),
            num_images=len(rows),
            labels=("a",),
        )

    return Population(patient, panel, ("ap40/a",))


POPULATIONS = (classes, answers, texts, boxes)


def coverage(
    population: Population,
    *,
    studies: int,
    patients: int,
    by_sample: bool,
    draws: int = DRAWS,
    seed: int = 20,
) -> dict[str, float]:
    """Return metric -> share of studies whose interval holds the population's value."""
    generator = np.random.default_rng(seed)
    truth = population.truth()
    starts = np.searchsorted(population.patient, np.arange(population.patient[-1] + 2))
    covered = np.zeros(len(truth))
    for study in range(studies):
        drawn = generator.integers(0, population.patient[-1] + 1, patients)
        rows = np.concatenate([np.arange(starts[one], starts[one + 1]) for one in drawn])
        owner = np.repeat(np.arange(patients), starts[drawn + 1] - starts[drawn])
        panel = population.panel(rows)
        columns = [panel.names.index(name) for name in population.kept]
        clusters: Sequence = np.arange(len(rows)).tolist() if by_sample else owner.tolist()
        values = draw_values(panel.statistic, clusters, draws=draws, seed=seed * studies + study)[
            :, columns
        ]
        found = [interval(column, confidence=CONFIDENCE) for column in values.T]
        covered += [one.low <= value <= one.high for one, value in zip(found, truth, strict=True)]
    return dict(zip(population.kept, (covered / studies).tolist(), strict=True))


def delong_coverage(*, studies: int, patients: int, by_sample: bool) -> dict[str, float]:
    """Return the coverage of DeLong's interval of the difference of two AUROCs."""
    generator = np.random.default_rng(20)
    patient, targets, given = scores(np.random.default_rng(0))
    truth = classes(np.random.default_rng(0)).truth()[3]
    starts = np.searchsorted(patient, np.arange(PATIENTS + 1))
    covered = 0
    for _ in range(studies):
        drawn = generator.integers(0, PATIENTS, patients)
        rows = np.concatenate([np.arange(starts[one], starts[one + 1]) for one in drawn])
        owner = np.repeat(np.arange(patients), starts[drawn + 1] - starts[drawn])
        clusters = np.arange(len(rows)).tolist() if by_sample else owner.tolist()
        found = delong_test(
            targets[rows], given[rows, 0], given[rows, 1], clusters, confidence=CONFIDENCE
        )
        covered += found.low <= truth <= found.high
    return {"auc difference (DeLong)": covered / studies}


def main(studies: int, patients: int) -> None:
    """Print both shares for every metric as JSON; by sample from a quarter of the studies."""
    table: dict[str, dict[str, float]] = {}
    for by_sample in (False, True):
        number = studies // 4 if by_sample else studies
        sizes = {"studies": number, "patients": patients, "by_sample": by_sample}
        shares = delong_coverage(**sizes)
        for make in POPULATIONS:
            shares |= coverage(make(np.random.default_rng(0)), **sizes)
        table["by sample" if by_sample else "by patient"] = shares
    print(json.dumps({"studies": studies, "patients": patients, **table}, indent=2))  # noqa: T201


if __name__ == "__main__":
    main(*(int(one) for one in (*sys.argv[1:], *("2000", "300")[len(sys.argv) - 1 :])))
