"""Several heads per system: who is whose, means in the sample and in every draw."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lapvqa.errors import SchemaError
from lapvqa.metrics.bootstrap import Measures, draw_values
from lapvqa.metrics.replicates import (
    first_heads,
    head_name,
    heads_by_system,
    mean_over_heads,
    measure_heads,
    values_over_heads,
)

COUNT = 30


def table(**values: np.ndarray) -> pa.Table:
    """A score of each sample by each system."""
    parts = [
        {"sample": f"s{number:02d}", "system": name.replace("_", "@"), "score": float(score)}
        for name, scores in values.items()
        for number, score in enumerate(scores)
    ]
    return pa.Table.from_pylist(parts)


def mean_score(rows: pa.Table) -> Measures:
    scores = rows["score"].to_numpy()
    samples = tuple(rows["sample"].to_pylist())
    return Measures(
        names=("mean",),
        samples=samples,
        patients=tuple(f"p{number // 2}" for number in range(len(samples))),
        statistic=lambda weights: (weights @ scores / weights.sum(axis=1))[:, None],
    )


@pytest.fixture
def scores() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=COUNT) for _ in range(3)]


def test_repeats_belong_to_their_system_in_the_order_of_seeds() -> None:
    names = ["b", *(head_name("a", number) for number in range(12))]
    assert heads_by_system(names) == {"a": names[1:], "b": ["b"]}


def test_a_name_with_the_mark_but_without_its_system_stands_alone() -> None:
    names = ["model@v2", "model", "other@1"]
    assert heads_by_system(names) == {name: [name] for name in sorted(names)}


def test_the_mean_is_taken_in_the_sample_and_in_every_draw(scores: list[np.ndarray]) -> None:
    predictions = table(a=scores[0], a_1=scores[1], a_2=scores[2])
    one = mean_over_heads(measure_heads(mean_score, predictions, ["a", "a@1", "a@2"]))
    found = draw_values(one.statistic, one.patients, draws=50, seed=0)
    each = [mean_score(table(a=own)) for own in scores]
    drawn = [draw_values(own.statistic, own.patients, draws=50, seed=0) for own in each]
    np.testing.assert_allclose(found, np.mean(drawn, axis=0))


def test_beside_the_mean_stands_the_standard_deviation_of_the_heads(
    scores: list[np.ndarray],
) -> None:
    heads = measure_heads(mean_score, table(a=scores[0], a_1=scores[1]), ["a", "a@1"])
    found = values_over_heads(heads)["mean"]
    values = [own.mean() for own in scores[:2]]
    assert found["values"] == pytest.approx(values)
    assert found["sd"] == pytest.approx(np.std(values, ddof=1))


def test_pictures_see_the_first_head_alone(scores: list[np.ndarray]) -> None:
    predictions = table(a=scores[0], a_1=scores[1], b=scores[2])
    assert first_heads(predictions).equals(table(a=scores[0], b=scores[2]))


def test_heads_that_were_asked_other_samples_are_refused(scores: list[np.ndarray]) -> None:
    with pytest.raises(SchemaError, match=r"a \(30 samples\) and a@1 \(29 samples\)"):
        measure_heads(mean_score, table(a=scores[0], a_1=scores[1][:-1]), ["a", "a@1"])
