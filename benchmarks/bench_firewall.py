"""Films in disguise: how many are found, how many pairs of different films are taken for one.

    python benchmarks/bench_firewall.py [CORPUS]

References are the corpus of real radiographs and the films of a demo archive of another seed. Every
film is compared with every other one, in five orientations; pairs of one patient do not count, and
what is found among different patients is listed. Then copies are planted: twelve kinds of edits.
Peers are two perceptual hashes: they get the same five orientations, the complement for nothing,
and the largest threshold without a false alarm among the real films (drawn ones would lower it).
The search over bits is timed beside faiss. One thread.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import cv2
import faiss
import imagehash
import numpy as np
import pdqhash
from numpy.typing import NDArray
from PIL import Image

from lapvqa.dicom import read_image
from lapvqa.firewall.descriptors import BITS, BYTES, ORIENTATIONS, describe, describe_turned, turned
from lapvqa.firewall.matching import PATIENCE, RADIUS, FilmMatch, candidates, find
from lapvqa.firewall.nearest import nearest_turn
from lapvqa.firewall.same_film import EDITED_COPY, SAME_FILM, compare, features
from lapvqa.firewall.trim import Film
from lapvqa.images.geometry import fit_image
from lapvqa.synth.anatomy import sample_anatomy
from lapvqa.synth.patient_history import sample_findings, stream
from lapvqa.synth.radiograph import Exposure, render

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "firewall"))
KINDS = importlib.import_module("film_edits").KINDS  # the tests' own

cv2.setNumThreads(1)
faiss.omp_set_num_threads(1)
DRAWN, COPIED_REAL, COPIED_DRAWN, SEED = 1_160, 120, 40, 91
AT_SCALE = 100_000
PATIENCES = (20, 100, PATIENCE)
"""At scale: so many of the nearest films are looked at."""
RESULT = Path(__file__).parent / "results" / "firewall-cpu.json"
CORPUS = Path(os.environ.get("LAPVQA_CORPUS", REPOSITORY.parent / "shared" / "corpus"))


@dataclass
class Films:
    """Films as they are stored, uint8 [384, 384], without padding, and whose they are."""

    stored: list[Film]
    content: list[Film]
    patients: list[str]
    real: int
    """So many of them, the first ones, are real."""

    def described(self) -> NDArray[np.uint8]:
        return np.stack([describe(film) for film in self.stored])


def read_films() -> Films:
    """Return the corpus's films, if it is there, and drawn ones, each of a patient of its own."""
    films = Films([], [], [], 0)
    for path in sorted((CORPUS / "mimic-cxr" / "files").rglob("*.dcm")):
        image = read_image(path.read_bytes())
        films.stored.append(image.pixels)
        films.content.append(image.pixels[image.fit.content])
        films.patients.append(path.parts[-3])
    films.real = len(films.stored)
    for film in range(DRAWN):
        view = ("PA", "AP", "PA", "AP", "LATERAL")[film % 5]
        anatomy = sample_anatomy(stream(SEED, film, 0))
        findings = sample_findings(stream(SEED, film, 1))
        exposure = Exposure(anatomy, findings, view, 400, 0.8 + 0.05 * (film % 9), (SEED, film, 2))
        stored, fit = fit_image(render(exposure).film.displayed())
        films.stored.append(stored)
        films.content.append(stored[fit.content])
        films.patients.append(f"drawn {film}")
    return films


def of_different_patients(films: Films, bits: NDArray[np.uint8]) -> list[FilmMatch]:
    """Return all that is found among films of different patients, each pair looked at once."""
    patients = films.patients
    return find(
        len(bits), bits, films.stored.__getitem__, films.stored.__getitem__,
        wanted=lambda query, other: other < query and patients[query] != patients[other],
        patience=len(bits),
    )  # fmt: skip


def distances(films: Films, bits: NDArray[np.uint8], shared: set[frozenset[str]]) -> dict:
    """Return the sorted distances, as shares of the bits, of films of different patients.

    Of real pairs and of drawn ones; patients who share a film are left out.
    """
    words = bits.view(np.uint64).reshape(len(bits), -1, BITS // 64)
    out: dict[str, list[NDArray[np.uint16]]] = {"real": [], "drawn": []}
    whose = np.array(films.patients)
    for query, film in enumerate(films.stored):
        first = 0 if query < films.real else films.real
        turns = describe_turned(film).view(np.uint64).reshape(len(ORIENTATIONS), -1, BITS // 64)
        far, turn = np.empty(query - first, np.uint16), np.empty(query - first, np.uint8)
        nearest_turn(words[first:query], turns, far, turn)
        known = {one for pair in shared if whose[query] in pair for one in pair} | {whose[query]}
        strangers = ~np.isin(whose[first:query], list(known))
        out["real" if query < films.real else "drawn"].append(far[strangers])
    return {name: np.sort(np.concatenate(one)) / BITS for name, one in out.items() if one}


@dataclass
class Hashes:
    """A peer: bits of films in five orientations, and its threshold."""

    make: Callable[[Film], NDArray[np.bool_]]
    references: NDArray[np.float32]
    threshold: float = 0.0

    def nearest(self, films: NDArray[np.bool_], rows: slice) -> NDArray[np.float32]:
        """Return distances [rows] to the nearest of a film's orientations, or its complement's."""
        signs = films.astype(np.float32) * 2 - 1
        size = signs.shape[1]
        return ((size - np.abs(self.references[rows] @ signs.T)) / 2).min(axis=1)


def phash(film: Film) -> NDArray[np.bool_]:
    """Return pHash, 64 bits, in five orientations."""
    turns = (Image.fromarray(np.ascontiguousarray(turned(film, one))) for one in ORIENTATIONS)
    return np.stack([imagehash.phash(one).hash.ravel() for one in turns])


def pdq(film: Film) -> NDArray[np.bool_]:
    """Return PDQ, 256 bits, in five orientations."""
    turns = (cv2.merge([np.ascontiguousarray(turned(film, one))] * 3) for one in ORIENTATIONS)
    return np.stack([pdqhash.compute(one)[0] for one in turns]).astype(bool)


def hashes_of(
    make: Callable[[Film], NDArray[np.bool_]], films: Films, strangers: Callable
) -> Hashes:
    """Hash all films; the threshold is the largest without a false alarm among real strangers."""
    every = [make(film) for film in films.content]
    signs = np.stack([one[0] for one in every]).astype(np.float32) * 2 - 1
    peer = Hashes(make, signs)
    nearest = [
        peer.nearest(turns, slice(0, query))[strangers(query)].min(initial=np.inf)
        for query, turns in enumerate(every[: films.real or None])
    ]
    peer.threshold = min(nearest) - 1
    return peer


def plant(films: Films, bits: NDArray[np.uint8], peers: dict[str, Hashes], worst: dict) -> dict:
    """Return by kind and way of editing what is found of the copies."""
    rng = np.random.default_rng(SEED)
    rows = [int(row) for row in np.linspace(0, films.real - 1, COPIED_REAL)] if films.real else []
    rows += list(range(films.real, films.real + COPIED_DRAWN))
    looked_at = {row: features(films.stored[row]) for row in rows}
    out: dict[str, dict] = {}
    for kind, ways in KINDS.items():
        of_kind = []
        for way, edit in ways.items():
            copies = [_copy(films, bits, peers, worst, row, edit, rng, looked_at) for row in rows]
            of_kind += copies
            out.setdefault(kind, {})[way] = _shares(copies)
        out[kind]["all"] = _shares(of_kind)
        print(kind, out[kind]["all"], flush=True)
    return out


def _copy(films, bits, peers, worst, row, edit, rng, looked_at) -> dict:
    edited = np.ascontiguousarray(edit(films.content[row], rng))
    stored = fit_image(edited)[0]
    near = candidates(0, stored, bits)
    place = [one.reference for one in near].index(row) if row in {n.reference for n in near} else -1
    score, distance = 0.0, 1.0
    if 0 <= place < PATIENCE:
        score = compare(features(turned(stored, near[place].orientation)), looked_at[row])
        distance = near[place].distance / BITS
    real = row < films.real
    return {
        "real": real,
        "found": score > EDITED_COPY,
        "same": score > SAME_FILM,
        "score": score,
        **{
            f"at_scale_{patience}": score > EDITED_COPY and distance <= far
            for patience, far in worst["real" if real else "drawn"].items()
        },
        **{
            name: bool(peer.nearest(peer.make(edited), slice(row, row + 1))[0] <= peer.threshold)
            for name, peer in peers.items()
        },
    }


def _shares(copies: list[dict]) -> dict:
    real = [one for one in copies if one["real"]]

    def share(name: str, of: list[dict]) -> float | None:
        return round(float(np.mean([one[name] for one in of])), 4) if of else None

    found = [one["score"] for one in copies if one["found"]]
    return {
        "copies": len(copies),
        "found": share("found", copies),
        "found_of_real": share("found", real),
        "called_same_film": share("same", copies),
        "found_among_100000_by_patience": {
            patience: share(f"at_scale_{patience}", copies) for patience in PATIENCES
        },
        "lowest_score_found": round(min(found), 3) if found else None,
        **{name: share(name, copies) for name in PEERS},
    }


PEERS = {"phash64": phash, "pdq256": pdq}


def timed(call: Callable[[int], object], turns: int) -> list[float]:
    """Return median, least and most of processor milliseconds."""
    spent = []
    for turn in range(turns):
        started = time.process_time()
        call(turn)
        spent.append(1000 * (time.process_time() - started))
    return [round(float(one), 2) for one in (np.median(spent), min(spent), max(spent))]


def times(films: Films) -> dict:
    """Return what each step costs, and a search among 100,000 beside faiss."""
    stored = films.stored
    looked_at = [features(film) for film in stored[:40]]
    rng = np.random.default_rng(SEED)
    many = rng.integers(0, 256, (AT_SCALE, BYTES), dtype=np.uint8)
    many[::1000] = np.stack([describe(film) for film in stored[: AT_SCALE // 1000]])
    index = faiss.IndexBinaryFlat(BITS)
    index.add(many.reshape(-1, BITS // 8))
    for row in range(5):
        ours = {(one.reference, one.distance) for one in candidates(0, stored[row], many)}
        best: dict[int, int] = {}
        for reference, distance in _faiss(index, stored[row]):
            best[reference] = min(distance, best.get(reference, BITS))
        assert ours == set(best.items()), "the two searches differ"
    return {
        "describe": timed(lambda turn: describe(stored[turn]), 40),
        "describe_in_five_orientations": timed(lambda turn: describe_turned(stored[turn]), 40),
        "features": timed(lambda turn: features(stored[turn]), 40),
        "compare": timed(lambda turn: compare(looked_at[turn], looked_at[turn - 1]), 40),
        "search_100000": timed(lambda turn: candidates(0, stored[turn], many), 9),
        "search_100000_faiss": timed(lambda turn: list(_faiss(index, stored[turn])), 9),
        "phash64_in_five_orientations": timed(lambda turn: phash(stored[turn]), 20),
        "pdq256_in_five_orientations": timed(lambda turn: pdq(stored[turn]), 20),
    }


def _faiss(index: faiss.IndexBinaryFlat, film: Film) -> list[tuple[int, int]]:
    """Return references and distances of a film's windows in five orientations, by faiss."""
    windows = describe_turned(film).reshape(-1, BITS // 8)
    _, far, found = index.range_search(windows, RADIUS + 1)
    half = BYTES // (BITS // 8)
    return list(zip((found // half).tolist(), far.astype(int).tolist(), strict=True))


def main() -> None:
    """Read, compare all, plant, time, keep."""
    load = os.getloadavg()[0]
    films = read_films()
    print(films.real, "real films,", len(films.stored) - films.real, "drawn", flush=True)
    bits = films.described()
    started = time.process_time()
    alike = of_different_patients(films, bits)
    all_pairs_s = time.process_time() - started
    whose = films.patients
    shared = {frozenset((whose[one.query], whose[one.reference])) for one in alike}
    false = [one for one in alike if max(one.query, one.reference) >= films.real]
    for one in alike:
        print(whose[one.query], whose[one.reference], one, flush=True)
    apart = distances(films, bits, shared)
    # The distance within which so many films of others lie, if there are 100,000.
    worst = {
        name: {patience: float(np.quantile(far, patience / AT_SCALE)) for patience in PATIENCES}
        for name, far in apart.items()
    }

    def strangers(query: int) -> NDArray[np.bool_]:
        kin = {one for pair in shared if whose[query] in pair for one in pair} | {whose[query]}
        return ~np.isin(whose[:query], list(kin))

    peers = {name: hashes_of(make, films, strangers) for name, make in PEERS.items()}
    planted = plant(films, bits, peers, worst)
    ms = times(films)
    by_patient = np.unique(whose, return_counts=True)[1]
    pairs = len(whose) * (len(whose) - 1) // 2 - int((by_patient * (by_patient - 1) // 2).sum())
    rates = {name: float((far <= RADIUS / BITS).mean()) for name, far in apart.items()}
    per_query = {
        f"{name}, patience {patience}":
            ms["describe_in_five_orientations"][0] + ms["search_100000"][0]
            + (1 + min(patience, rate * AT_SCALE)) * ms["features"][0]
            + min(patience, rate * AT_SCALE) * ms["compare"][0]
        for name, rate in rates.items() for patience in PATIENCES
    }  # fmt: skip
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_average": [load, os.getloadavg()[0]],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS},
        "films_real_drawn": [films.real, len(films.stored) - films.real],
        "pairs_of_different_patients": pairs,
        "pairs_found_among_them": [
            {
                "patients": [whose[one.query], whose[one.reference]],
                "score": round(one.score, 3),
                "verdict": one.verdict,
                "orientation": one.orientation,
            }
            for one in alike
        ],
        "false_alarms_with_a_drawn_film": len(false),
        "candidates_per_pair": rates,
        "nearest_strangers_share_of_bits": {name: float(far[0]) for name, far in apart.items()},
        "distance_of_the_nth_stranger_of_100000": worst,
        "all_pairs_cpu_s": round(all_pairs_s, 1),
        "planted": planted,
        "cpu_ms_median_min_max": ms,
        "query_among_100000_cpu_ms_estimated": {k: round(v) for k, v in per_query.items()},
        "all_of_100000_cpu_hours_estimated": {
            name: round(AT_SCALE * one / 3.6e6, 1) for name, one in per_query.items()
        },
        "peer_thresholds_bits": {name: float(peer.threshold) for name, peer in peers.items()},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


VERSIONS = ("numpy", "opencv-python-headless", "numba", "faiss-cpu", "imagehash", "pdqhash")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    main()
