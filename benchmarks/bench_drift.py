"""Looks for drift: false alarms without any, power against known changes, and how they are named.

    python benchmarks/bench_drift.py PROJECT [PART ...]

PROJECT is a finished demo, for its encoder. Parts: alarms, power, named, years; all without.
Films are the corpus of real radiographs (several of a patient) and films drawn here, whose findings
are known. Patients are divided at random into new ones and a reference; the same divisions are
judged by lapvqa's test, which permutes patients, and by its peers: the same statistic with images
permuted (as drift libraries permute rows), a Kolmogorov-Smirnov test per feature with Bonferroni,
and PSI > 0.2 on the first principal axis. Then films of the new patients are changed. One thread.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from lapvqa.dicom.render import read_image
from lapvqa.drift import features, greys, shares, spending
from lapvqa.drift.compare import compare, name_kind
from lapvqa.drift.permutation import permute
from lapvqa.drift.streams import FEATURES, FINDINGS, GREYS, Rows, Stream
from lapvqa.evaluation.features import encode
from lapvqa.evaluation.image_encoder import OwnEncoder
from lapvqa.gate.verdict import holm
from lapvqa.images.geometry import fit_image
from lapvqa.pretrain.files import load_encoder
from lapvqa.synth.anatomy import sample_anatomy
from lapvqa.synth.patient_history import evolve, sample_findings, stream
from lapvqa.synth.radiograph import Exposure, render

torch.set_num_threads(1)
cv2.setNumThreads(1)
REPOSITORY = Path(__file__).resolve().parents[1]
CORPUS = Path(os.environ.get("LAPVQA_CORPUS", REPOSITORY.parent / "shared" / "corpus"))
RESULT = Path(__file__).parent / "results" / "drift-cpu.json"
LEVEL, SEED, DRAWN = 0.05, 77, 400
DIVISIONS, REPEATS, NAMED, YEARS = 250, 100, 100, 250
KINDS = (
    "pleural effusion",
    "cardiomegaly",
    "edema",
    "consolidation",
    "atelectasis",
    "pneumothorax",
)
Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]


def gamma(films: Pixels) -> Pixels:
    return np.rint(255 * (films / 255) ** 0.8).astype(np.uint8)


def clahe(films: Pixels) -> Pixels:
    made = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))
    return np.stack([made.apply(film) for film in films])


def noise(films: Pixels) -> Pixels:
    drawn = np.random.default_rng(SEED).normal(0, 8, films.shape)
    return np.clip(np.rint(films + drawn), 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "none": lambda films: films, "gamma .8": gamma, "CLAHE": clahe, "noise": noise,
}  # fmt: skip


@dataclass
class Films:
    """Features and greys [n, D] of films under each change, whose they are, what they show."""

    changed: dict[tuple[str, str], Array]
    """(kind of stream, change) -> numbers."""
    owners: NDArray[np.intp]
    findings: list[frozenset[str]]
    """By film."""

    @property
    def patients(self) -> int:
        return int(self.owners.max()) + 1

    def chosen(
        self, patients: NDArray[np.intp], new: int, change: str, kind: str = FEATURES
    ) -> tuple[Array, Rows]:
        """Return numbers and rows of some patients, of whom the first ``new`` are new."""
        place = np.full(self.patients, -1)
        place[patients] = np.arange(len(patients))
        films = np.flatnonzero(place[self.owners] >= 0)
        owners = place[self.owners[films]]
        is_new = owners < new
        changed, plain = self.changed[kind, change], self.changed[kind, "none"]
        values = np.where(is_new[:, None], changed[films], plain[films])
        rows = Rows(
            owners, np.arange(len(patients)) < new, np.ones(len(films)),
            [str(patient) for patient in patients],
        )  # fmt: skip
        return features.standardised(values), rows


def real_films(encoder: OwnEncoder, folder: Path) -> Films:
    paths = sorted((folder / "mimic-cxr" / "files").rglob("*.dcm"))
    pixels = np.stack([read_image(path.read_bytes()).pixels for path in paths])
    _, owners = np.unique([path.parts[-3] for path in paths], return_inverse=True)
    return Films(_numbers(encoder, pixels), owners, [frozenset()] * len(paths))


def drawn_films(encoder: OwnEncoder) -> Films:
    """Draw one to three studies of each patient, a film each."""
    pixels, owners, found = [], [], []
    for patient in range(DRAWN):
        anatomy, rng = sample_anatomy(stream(SEED, patient, 0)), stream(SEED, patient, 1)
        findings = sample_findings(rng)
        for study in range(1 + patient % 3):
            findings = evolve(rng, findings) if study else findings
            exposure = Exposure(anatomy, findings, "PA", 400, 0.9, (SEED, patient, 2 + study))
            pixels.append(fit_image(render(exposure).film.displayed())[0])
            owners.append(patient)
            found.append(frozenset(finding.kind for finding in findings))
    return Films(_numbers(encoder, np.stack(pixels)), np.array(owners), found)


def _numbers(encoder: OwnEncoder, pixels: Pixels) -> dict[tuple[str, str], Array]:
    found = {}
    for name, change in CHANGES.items():
        films = change(pixels)
        encoded = encode(encoder, films, torch.device("cpu")).astype(np.float64)
        found[FEATURES, name], found[GREYS, name] = encoded, greys.describe(films)
    return found


# The tests: features, rows -> whether drift is said


def by_patient(values: Array, rows: Rows, rng: np.random.Generator) -> bool:
    kernel = features.kernel(values, rows.patients, rows.weights)
    return permute(kernel.statistic, rows.in_window, rng, draws=1000).p <= LEVEL


def by_image(values: Array, rows: Rows, rng: np.random.Generator) -> bool:
    kernel = features.kernel(values, np.arange(len(values)), rows.weights)
    return permute(kernel.statistic, rows.new, rng, draws=1000).p <= LEVEL


def ks(values: Array, rows: Rows, _: np.random.Generator) -> bool:
    found = stats.ks_2samp(values[rows.new], values[~rows.new], method="asymp").pvalue
    return bool(found.min() <= LEVEL / values.shape[1])


def psi(values: Array, rows: Rows, _: np.random.Generator) -> bool:
    old = values[~rows.new]
    axis = np.linalg.svd(old - old.mean(axis=0), full_matrices=False)[2][0]
    place = values @ axis
    edges = np.quantile(place[~rows.new], np.linspace(0, 1, 11)[1:-1])
    bins = np.searchsorted(edges, place)
    ours, theirs = (
        (np.bincount(bins[side], minlength=10) + 0.5) / (side.sum() + 5)
        for side in (rows.new, ~rows.new)
    )
    return bool(((ours - theirs) * np.log(ours / theirs)).sum() > 0.2)


METHODS = {
    "MMD, patients permuted (lapvqa)": by_patient, "MMD, images permuted": by_image,
    "KS per feature, Bonferroni": ks, "PSI > 0.2 on the first axis": psi,
}  # fmt: skip


def false_alarms(films: Films, new: int) -> dict[str, float]:
    found: Counter[str] = Counter()
    for number in range(DIVISIONS):
        rng = np.random.default_rng([SEED, 1, number])
        values, rows = films.chosen(rng.permutation(films.patients), new, "none")
        for name, method in METHODS.items():
            found[name] += method(values, rows, rng)
    return {name: found[name] / DIVISIONS for name in METHODS}


def power(films: Films, new: int, change: str, kind: str) -> float:
    found = 0
    for number in range(REPEATS):
        rng = np.random.default_rng([SEED, 2, number])
        patients = rng.permutation(films.patients)
        found += by_patient(*films.chosen(patients, new, change, kind), rng)
    return found / REPEATS


def named(films: Films, new: int, change: str, *, sicker: bool) -> dict[str, float]:
    """Return how often each kind is named; ``sicker``: sick patients come four times as often."""
    found: Counter[str] = Counter()
    is_sick = np.zeros(films.patients, bool)
    for owner, findings in zip(films.owners, films.findings, strict=True):
        is_sick[owner] |= len(findings & {"pleural effusion", "edema"}) > 0
    for number in range(NAMED):
        rng = np.random.default_rng([SEED, 3, number])
        chance = np.where(is_sick, 4.0 if sicker else 1.0, 1.0)
        first = rng.choice(films.patients, new, replace=False, p=chance / chance.sum())
        rest = rng.permutation(np.setdiff1d(np.arange(films.patients), first))
        if sicker:  # else the reference lacks the sick whom the new ones have
            rest = rest[: len(rest) // 2]
        every = np.concatenate([first, rest])
        made = {kind: films.chosen(every, new, change, kind) for kind in (FEATURES, GREYS)}
        streams = [Stream(kind, kind, rows) for kind, (_, rows) in made.items()]
        streams.append(_findings(films, first, rest, made[FEATURES][1]))
        compared = compare(streams, lambda one, made=made: made[one.kind][0], LEVEL, seed=number)
        found[name_kind(compared, LEVEL)] += 1
    return {kind: count / NAMED for kind, count in found.most_common()}


def _findings(films: Films, first: Array, rest: Array, rows: Rows) -> Stream:
    chosen = np.isin(films.owners, np.concatenate([first, rest]))
    films_of = [findings for findings, is_in in zip(films.findings, chosen, strict=True) if is_in]
    answers = {
        kind: np.array(["positive" if kind in findings else "no word" for findings in films_of])
        for kind in KINDS
    }
    return Stream("findings", FINDINGS, rows, answers=answers)


def years(films: Films, looks: int) -> dict[str, float]:
    """Return what a year of looks raises without drift, each at the level of the time passed."""
    level = spending.level(0.5, 365.25 * 86400 / looks)
    alarms = []
    for number in range(YEARS):
        rng = np.random.default_rng([SEED, 4, number, looks])
        order, raised = rng.permutation(films.patients), 0
        known, others = order[:200], order[200:]
        for _ in range(looks):
            first = rng.choice(others, 40, replace=False)
            values, rows = films.chosen(np.concatenate([first, known]), 40, "none")
            answers = _findings(films, first, known, rows).answers
            counts = shares.count(answers, rows.patients, rows.weights)
            kernel = features.kernel(values, rows.patients, rows.weights)
            draws = spending.draws(level, 2)
            p_values = {
                str(statistic): permute(statistic, rows.in_window, rng, draws=draws).p
                for statistic in (kernel.statistic, counts.statistic)
            }
            raised += bool(holm(p_values, level))
        alarms.append(raised)
    any_alarm = np.array(alarms) > 0
    return {"alarms_a_year": float(np.mean(alarms)), "years_with_any": float(any_alarm.mean())}


def measure(part: str, real: Films, drawn: Films) -> dict[str, object]:
    """Return what one part finds."""
    if part == "alarms":
        sets = {"real": real, "drawn": drawn}
        return {f"{name}, 50 new": false_alarms(films, 50) for name, films in sets.items()}
    if part == "power":
        return {
            f"{change}, {name}, {new} new": {
                kind: power(films, new, change, kind) for kind in (FEATURES, GREYS)
            }
            for name, films, sizes in (("real", real, (25, 50)), ("drawn", drawn, (25, 50, 100)))
            for change in list(CHANGES)[1:]
            for new in sizes
        }
    if part == "named":
        cases = [(change, False) for change in CHANGES] + [("none", True), ("gamma .8", True)]
        return {
            f"{change}{', sicker' * sicker}, {new} new": named(drawn, new, change, sicker=sicker)
            for change, sicker in cases
            for new in (50, 150)
        }
    return {f"{looks} looks": years(drawn, looks) for looks in (12, 52)}


def main(project: Path, parts: list[str]) -> None:
    encoder = OwnEncoder(load_encoder(project / "models" / "captioning")).eval()
    real, drawn = real_films(encoder, CORPUS), drawn_films(encoder)
    sets = {"real": real, "drawn": drawn}
    result = json.loads(RESULT.read_bytes()) if RESULT.exists() else {}
    result |= {
        "machine": platform.platform(), "python": platform.python_version(),
        "torch": version("torch"), "date": time.strftime("%Y-%m-%d"), "encoder": encoder.about,
        "films": {name: [len(films.owners), films.patients] for name, films in sets.items()},
        "repeats": {"alarms": DIVISIONS, "power": REPEATS, "named": NAMED, "years": YEARS},
    }  # fmt: skip
    for part in parts:
        result[part] = measure(part, real, drawn)
        for key, value in result[part].items():
            print(f"{part}: {key}: {value}", flush=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:] or ["alarms", "power", "named", "years"])
