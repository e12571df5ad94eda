"""Copies are found however they were edited; films of different patients are not."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from drawn_films import draw, edited, stored
from film_edits import KINDS, Film, cropped, gamma
from hypothesis import given
from hypothesis import strategies as st

from lapvqa.dicom import read_image
from lapvqa.firewall.descriptors import BITS, BYTES, describe
from lapvqa.firewall.matching import FilmMatch, candidates, find
from lapvqa.firewall.nearest import nearest_turn
from lapvqa.firewall.same_film import verdict_of

FILMS = [draw(patient) for patient in range(12)]
STORED = [stored(film) for film in FILMS]
REFERENCES = np.stack([describe(film) for film in STORED])
SAME, EDITED = "same film", "edited copy or same patient"


def matches(queries: list[Film], **more: object) -> list[FilmMatch]:
    return find(len(queries), REFERENCES, queries.__getitem__, STORED.__getitem__, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_editing_is_found_and_nothing_else(kind: str) -> None:
    ways = list(KINDS[kind].items())
    copied = [3, 7] if len(ways) > 2 else [2, 3, 7]
    queries = [edited(FILMS[film], edit) for film in copied for _, edit in ways]
    found = matches(queries)
    assert [(one.query, one.reference) for one in found] == [
        (row, copied[row // len(ways)]) for row in range(len(queries))
    ]
    for one in found:
        way = ways[one.query % len(ways)][0]
        expected = next((turn for turn in ("mirrored", "turned") if way.startswith(turn)), None)
        # Found as "turned 90" is what has to be turned by 270 to fit.
        back = {"turned 90": "turned 270", "turned 270": "turned 90"}
        assert one.orientation == (back.get(way, way.split(",")[0]) if expected else "upright")


def test_strangers_are_no_match_even_if_all_are_looked_at_and_one_planted_is() -> None:
    films = [*STORED, edited(FILMS[5], lambda film, rng: gamma(film[:, ::-1], 0.7))]
    bits = np.stack([describe(film) for film in films])
    found = find(
        len(films), bits, films.__getitem__, films.__getitem__,
        wanted=lambda query, reference: reference < query, radius=BITS, patience=len(films),
    )  # fmt: skip
    assert [(one.query, one.reference, one.verdict) for one in found] == [(12, 5, SAME)]
    assert found[0].orientation == "mirrored"


def test_the_part_may_be_on_either_side() -> None:
    part = stored(cropped(FILMS[4], np.full(4, 0.1)))
    assert [one.reference for one in matches([part])] == [4]
    found = find(1, describe(part)[None], lambda _: STORED[4], lambda _: part)
    assert [one.verdict for one in found] == [SAME]


def test_only_candidates_that_are_wanted_are_loaded() -> None:
    loaded = []

    def load(row: int) -> Film:
        loaded.append(row)
        return STORED[row]

    found = find(
        2, REFERENCES, STORED.__getitem__, load,
        wanted=lambda query, reference: reference != query,
    )  # fmt: skip
    near = {
        one.reference
        for row in (0, 1)
        for one in candidates(row, STORED[row], REFERENCES)
        if one.reference != row
    }
    assert not found
    assert set(loaded) == near


def test_every_copy_is_found_and_then_strangers_are_left() -> None:
    strangers, copies = [1, 2, 3, 4, 6, 7, 8, 9], 5
    rows = [0] * copies + strangers
    loaded = []

    def load(row: int) -> Film:
        loaded.append(row)
        return STORED[rows[row]]

    found = find(
        1, REFERENCES[rows], STORED.__getitem__, load, radius=BITS, patience=2
    )  # fmt: skip
    assert [one.reference for one in found] == list(range(copies))
    assert len(loaded) == copies + 2


def test_threads_change_nothing() -> None:
    queries = [edited(film, KINDS["rotation"]["5 degrees"]) for film in FILMS[:6]]
    assert matches(queries, workers=3) == matches(queries)


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 3))
def test_the_search_agrees_with_counting_bit_by_bit(seed: int, rows: int, turns: int) -> None:
    rng = np.random.default_rng(seed)
    references = rng.integers(0, 256, (rows, 2, BITS // 8), dtype=np.uint8)
    query = rng.integers(0, 256, (turns, 2, BITS // 8), dtype=np.uint8)
    distances, which = np.empty(rows, np.uint16), np.empty(rows, np.uint8)
    nearest_turn(references.view(np.uint64), query.view(np.uint64), distances, which)
    # [rows, turns, windows of the query, windows of the reference, bytes]
    differ = references[:, None, None] ^ query[None, :, :, None]
    every = np.unpackbits(differ, axis=-1).sum(axis=-1).min(axis=(2, 3))
    assert (distances == every.min(axis=1)).all()
    assert (which == every.argmin(axis=1)).all()


def test_memory_and_time_at_the_size_of_an_archive() -> None:
    references = np.random.default_rng(0).integers(0, 256, (100_000, BYTES), dtype=np.uint8)
    references[77_777] = REFERENCES[6]
    tracemalloc.start()
    started = time.process_time()
    found = candidates(0, STORED[6], references)
    assert time.process_time() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()
    assert [(one.reference, one.distance) for one in found] == [(77_777, 0)]


@pytest.mark.parametrize(
    ("score", "verdict"), [(1.0, SAME), (0.91, SAME), (0.9, EDITED), (0.61, EDITED), (0.6, None)]
)
def test_verdicts(score: float, verdict: str | None) -> None:
    assert verdict_of(score) == verdict


@pytest.mark.parametrize(
    "references", [np.zeros((3, BYTES - 1), np.uint8), np.zeros((3, BYTES), np.int8)]
)
def test_other_descriptors_are_refused(references: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected descriptors"):
        find(1, references, STORED.__getitem__, STORED.__getitem__)


def test_films_without_contrast_match_nothing() -> None:
    flat = np.full((384, 384), 90, np.uint8)
    assert not find(1, describe(flat)[None], lambda _: flat, lambda _: flat)


TWO_IDENTITIES = {("p10250627", "p19543485"): 3, ("p10538684", "p18217430"): 2,
                  ("p14925751", "p15459777"): 4, ("p17979220", "p18842097"): 1}  # fmt: skip


@pytest.mark.corpus
def test_people_with_two_identities_in_the_corpus_are_found(corpus: Path) -> None:
    files = corpus / "mimic-cxr" / "files"
    chosen = {one for pair in TWO_IDENTITIES for one in pair}
    others = sorted(folder.name for folder in files.glob("p*/p*") if folder.name not in chosen)
    whose, films = [], []
    for patient in (*sorted(chosen), *others[::16]):
        for path in sorted((files / patient[:3] / patient).rglob("*.dcm")):
            whose.append(patient)
            films.append(read_image(path.read_bytes()).pixels)
    bits = np.stack([describe(film) for film in films])
    found = find(
        len(films), bits, films.__getitem__, films.__getitem__,
        wanted=lambda query, other: other < query and whose[query] != whose[other],
    )  # fmt: skip
    pairs = [tuple(sorted((whose[one.query], whose[one.reference]))) for one in found]
    assert {pair: pairs.count(pair) for pair in pairs} == TWO_IDENTITIES
    assert {one.verdict for one in found} == {SAME}
