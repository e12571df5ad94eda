"""What a card says of a model: made of facts of the ledger, in the order in which people ask.

The headings of the datasheet are those of Gebru et al. 2021 (arXiv:1803.09010), those of the card
of Mitchell et al. 2019 (arXiv:1810.03993).
"""

from __future__ import annotations

from collections.abc import Iterator

from lapvqa.evaluation.results import MEANINGS, state_of
from lapvqa.evaluation.task_table import HUB_TASKS
from lapvqa.lineage.ancestry import FIREWALL, Ancestry, Told
from lapvqa.lineage.card.change import since
from lapvqa.lineage.card.fact import Fact, fact, leaves, value_at
from lapvqa.lineage.card.page import (
    UNDEFINED,
    Block,
    Card,
    Cell,
    Heading,
    Result,
    paragraph,
    table,
)

SPLITS = ("train", "validate", "test")


def card(ancestry: Ancestry, model: Told) -> Card:
    """Return the card of a model (``chosen.model``)."""
    scope = ancestry.upstream(model)
    evaluations = ancestry.evaluations(model)
    blocks = [
        *_details(model, scope),
        *_data(scope),
        *_training(scope),
        *_evaluation(evaluations),
        *_contamination(scope, evaluations),
        *_cost([*scope, *evaluations]),
        *since(ancestry, model),
        *_decisions(ancestry, [*scope, *evaluations]),
        *_provenance([*scope, *evaluations]),
    ]
    return Card(_name(model), tuple(_results(evaluations)), tuple(blocks))


def metrics_file(told: Told) -> str:
    """Return the path of an evaluation's metrics.json."""
    return next((path for path in told.run.outs if path.endswith("/metrics.json")), "")


def _name(model: Told) -> Fact:
    found = fact(model.entry, "outs", str(model.weights), form="key")
    assert found is not None
    return found


def _details(model: Told, scope: list[Told]) -> Iterator[Block]:
    yield Heading(1, "Model card")
    weights, entry = str(model.weights), model.entry
    training = _run_of(scope, "pretrain")
    objective = (
        fact(training.entry, "params", "pretrain", "objective", form="text") if training else None
    )
    yield Heading(2, "Model details")
    yield from table(
        ("what", "value"),
        [
            ("weights", _name(model)),
            ("digest (SHA) of the weights", fact(entry, "files", weights, "sha256", form="text")),
            ("bytes", fact(entry, "files", weights, "bytes")),
            ("objective", objective),
            ("made on", fact(entry, "started", form="date")),
            ("made by run", fact(entry, form="id")),
            ("commit", fact(entry, "commit", form="short")),
            ("tracked files differed from the commit", fact(entry, "dirty")),
        ],
    )
    yield Heading(2, "Intended use")
    yield paragraph(
        "Features of frontal chest radiographs for research: probes, heads, comparison of "
        "encoders. It is no medical device, was not assessed for diagnosis, and must not decide "
        "about a patient."
    )


def _data(scope: list[Told]) -> Iterator[Block]:
    yield Heading(2, "Datasheet")
    yield Heading(3, "Composition")
    ingest = _run_of(scope, "ingest")
    tables = {
        "images": ("data/images.parquet", ("counts", "split")),
        "studies": ("data/studies.parquet", ("counts", "split")),
        "patients": ("data/studies.parquet", ("counts", "patients")),
        "studies with a report": ("data/studies.parquet", ("counts", "with_report")),
    }
    rows: list[list[Cell]] = []
    for name, (file, path) in tables.items():
        if ingest and value_at(ingest.entry, "files", file, *path):
            rows.append([name, *_by_split(ingest, "files", file, *path)])
    yield from table(("", *SPLITS), rows)
    for title, what, file, column in (
        ("View", "images by view", "data/images.parquet", "view"),
        ("Sex", "studies by sex", "data/demographics.parquet", "sex"),
        ("Age band", "studies by age band", "data/demographics.parquet", "age_band"),
    ):
        yield Heading(3, title)
        place = ("files", file, "counts", column)
        values = value_at(ingest.entry, *place) if ingest else None
        if ingest and values:
            cells = [
                [_key(ingest, *place, value), *_by_split(ingest, *place, value)]
                for value in sorted(values)
            ]
            yield from table((what, *SPLITS), cells)
        else:
            yield paragraph("Not recorded: the tables of this archive do not hold it.")
    yield Heading(3, "Collection, preprocessing")
    yield paragraph(
        "One archive of DICOM files and reports, read by the stage ingest. Patients, not images, "
        "are divided among the splits; identifiers are keyed hashes. What was turned away:"
    )
    yield from table(("kind", "reason", "number"), list(_rejects(scope)))
    yield Heading(3, "Distribution, maintenance")
    yield paragraph(
        "The data stays where it is; the ledger of the project says which run made what, and "
        "whom each training sampled."
    )


def _rejects(scope: list[Told]) -> Iterator[list[Cell]]:
    for told in scope:
        for path in told.run.outs:
            if path.rpartition("/")[2] in ("rejects.parquet", "token_rejects.parquet"):
                for leaf in leaves(told.entry, "files", path, "counts"):
                    yield [_key(told, *leaf[:-1]), _key(told, *leaf), fact(told.entry, *leaf)]


def _training(scope: list[Told]) -> Iterator[Block]:
    yield Heading(2, "Training")
    training = _run_of(scope, "pretrain")
    for path in training.run.outs if training else ():
        place = ("files", path, "members")
        if training and value_at(training.entry, *place):
            yield paragraph(
                "Patients of training and validation: ", fact(training.entry, *place, "patients"),
                ". Merkle root of their keyed digests, which proves that somebody is not in it: ",
                fact(training.entry, *place, "root", form="text"), ".",
            )  # fmt: skip
    yield Heading(3, "What the stages counted")
    yield from table(("stage", "count", "value"), _counts(scope))
    yield Heading(3, "Parameters")
    yield from table(
        ("stage", "parameter", "value"),
        [
            (_stage(told), fact(told.entry, *leaf, form="dotted"), fact(told.entry, *leaf))
            for told in scope
            for leaf in leaves(told.entry, "params")
        ],
    )


def _evaluation(evaluations: list[Told]) -> Iterator[Block]:
    yield Heading(2, "Evaluation")
    yield paragraph(
        "Percentile bootstrap intervals, patients resampled. A name is the system, a point, and "
        "the metric; with a dash between two systems it is their difference. The primary metrics:"
    )
    yield from table(
        ("task", "system and metric", "value", "low", "high"),
        [
            (one.task, one.metric, one.value, one.low or UNDEFINED, one.high or UNDEFINED)
            for one in _results(evaluations)
        ],
    )
    for told in evaluations:
        told_of = ("files", metrics_file(told), "evaluation")
        yield Heading(3, _stage(told))
        yield from table(
            ("what", "value"),
            [
                ("status", fact(told.entry, *told_of, "status", form="text")),
                ("samples", fact(told.entry, *told_of, "num_samples")),
                ("patients", fact(told.entry, *told_of, "num_patients")),
                ("digest of the test samples",
                 fact(told.entry, *told_of, "samples_sha256", form="short")),
                *([("reason", reason)]
                  if (reason := fact(told.entry, *told_of, "reason", form="text")) else []),
            ],
        )  # fmt: skip
        rows = [
            [_key(told, "metrics", name), *_interval(told, name)]
            for name in sorted(told.run.metrics)
            if not name.endswith((".low", ".high"))
        ]
        if rows:
            yield from table(("system and metric", "value", "low", "high"), rows)
        yield from _slices(told, *told_of, "slices")


def _slices(told: Told, *place: str) -> Iterator[Block]:
    rows = [
        [_key(told, *leaf[: len(place) + 1]), _key(told, *leaf), fact(told.entry, *leaf)]
        for leaf in leaves(told.entry, *place)
    ]
    if rows:
        yield Heading(3, "Slices")
        yield from table(("slice", "what", "value"), rows)


def _counts(scope: list[Told]) -> list[list[Cell]]:
    return [
        [_stage(told), _key(told, *leaf), fact(told.entry, *leaf)]
        for told in scope
        for leaf in leaves(told.entry, "counts")
    ]


def _contamination(scope: list[Told], evaluations: list[Told]) -> Iterator[Block]:
    yield Heading(2, "Contamination")
    searched = _counts([told for told in scope if told.run.stage == FIREWALL])
    if searched:
        yield paragraph("What the search for test samples in training counted:")
        yield from table(("stage", "count", "value"), searched)
    stamps = [
        (told, ("files", metrics_file(told), "evaluation", "contaminated")) for told in evaluations
    ]
    rows = [
        (_stage(told), _key(told, *leaf), fact(told.entry, *leaf))
        for told, place in stamps
        for leaf in leaves(told.entry, *place)
    ]
    if rows:
        yield from table(("evaluation", "what training saw of its test samples", ""), rows)
        found = [value_at(told.entry, *place, "counts") for told, place in stamps]
        for state in sorted({state_of(counts) for counts in found if counts}):
            yield paragraph(f"{state.capitalize()}: {MEANINGS[state]}.")
    else:
        yield paragraph("Not recorded: no evaluation says whether training saw its test samples.")


def _cost(told: list[Told]) -> Iterator[Block]:
    yield Heading(2, "Cost")
    yield from table(
        ("stage", "seconds", "host", "GPU"),
        [
            (
                _stage(one),
                fact(one.entry, "seconds", form="seconds"),
                fact(one.entry, "environment", "host", form="text"),
                fact(one.entry, "environment", "gpu", form="text"),
            )
            for one in told
        ],
    )


def _decisions(ancestry: Ancestry, told: list[Told]) -> Iterator[Block]:
    rows = [
        (fact(entry, form="id"), fact(entry, *leaf, form="key"), fact(entry, *leaf))
        for entry in ancestry.beside(told)
        if entry.kind not in ("code", "patch")
        for leaf in leaves(entry)
    ]
    yield Heading(2, "Decisions about this model")
    yield from table(("entry", "what", "value"), rows)


def _provenance(told: list[Told]) -> Iterator[Block]:
    yield Heading(2, "Provenance")
    yield paragraph(
        "Each value of this page carries the place in the ledger where it stands, and "
        "`lapvqa card --check` holds it against it. The runs:"
    )
    yield from table(
        ("stage", "run", "on", "commit", "code"),
        [
            (
                _stage(one),
                fact(one.entry, form="id"),
                fact(one.entry, "started", form="date"),
                fact(one.entry, "commit", form="short"),
                fact(one.entry, "code", form="short"),
            )
            for one in told
        ],
    )


def _results(evaluations: list[Told]) -> Iterator[Result]:
    for told in evaluations:
        about = ("files", metrics_file(told), "evaluation")
        task, primary = (value_at(told.entry, *about, key) for key in ("task", "primary"))
        for name in sorted(told.run.metrics):
            system, _, metric = name.partition(".")
            if metric != primary or "-" in system:
                continue
            value, low, high = (
                fact(told.entry, "metrics", f"{name}{end}", form="exact")
                for end in ("", ".low", ".high")
            )
            named = fact(told.entry, "metrics", name, form="key")
            task_fact = fact(told.entry, *about, "task", form="text")
            assert value is not None
            assert named is not None
            assert task_fact is not None
            yield Result(
                task_fact, HUB_TASKS.get(task, "other"), named, value, low, high,
                fact(told.entry, *about, "samples_sha256", form="text"),
            )  # fmt: skip


def _interval(told: Told, name: str) -> list[Cell]:
    return [
        fact(told.entry, "metrics", f"{name}{end}", form="metric") or UNDEFINED
        for end in ("", ".low", ".high")
    ]


def _by_split(told: Told, *place: str) -> list[Cell]:
    return [fact(told.entry, *place, split) or "none" for split in SPLITS]


def _key(told: Told, *place: str) -> Cell:
    return fact(told.entry, *place, form="key")


def _stage(told: Told) -> Cell:
    return fact(told.entry, "stage", form="text")


def _run_of(scope: list[Told], stage: str) -> Told | None:
    return next((told for told in reversed(scope) if told.run.stage == stage), None)
