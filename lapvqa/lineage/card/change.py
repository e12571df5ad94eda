"""What changed since the model before, under the headings of a predetermined change control plan.

FDA, "Marketing Submission Recommendations for a Predetermined Change Control Plan for Artificial
Intelligence-Enabled Device Software Functions", final guidance of December 2024.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapvqa.lineage.ancestry import Ancestry, Told
from lapvqa.lineage.card.fact import Fact, fact, leaves
from lapvqa.lineage.card.page import UNDEFINED, Block, Cell, Heading, paragraph, table


def since(ancestry: Ancestry, model: Told) -> Iterator[Block]:
    """Yield what differs from the model that was made at the same place before this one."""
    before = ancestry.predecessor(model)
    yield Heading(2, "Changes since the predecessor")
    if before is None:
        yield paragraph("There is no predecessor: it is the first model at its place.")
        return
    pairs = _paired(ancestry.scope(before), ancestry.scope(model))
    yield paragraph("Predecessor: the model of run ", fact(before.entry, form="id"), ".")
    yield Heading(3, "Description of modifications")
    yield paragraph("Parameters:")
    yield from _table(_differences(pairs, "params"))
    yield paragraph("Data, as the tables count it:")
    counts = _differences(pairs, "files", only="counts")
    yield from _table([[cell or "none" for cell in row] for row in counts])
    yield paragraph("Code and environment:")
    rows = [
        [fact(new.entry, "stage", form="text"), what, *_both(old, new, key, form="short")]
        for old, new in pairs
        for what, key in (("commit", "commit"), ("code", "code"), ("local changes", "patch"))
        if getattr(old.run, key) != getattr(new.run, key)
    ]
    yield from _table(rows + _differences(pairs, "environment"))
    yield Heading(3, "Modification protocol")
    yield paragraph(
        "Data management: patients are divided among the splits by a keyed hash, new ones are "
        "added, none changes its split. Re-training: the stage pretrain with the parameters above. "
        "Performance evaluation: predictions first, metrics from predictions, intervals by "
        "patient, on the test samples whose digest stands with each task. Update procedures: the "
        "registry's alias moves on a gate's verdict alone, by the rule that stands with it; "
        "decisions about this model stand below."
    )
    yield Heading(3, "Impact assessment")
    yield paragraph("Metrics of the same name, before and now:")
    yield from table(
        ("evaluation", "system and metric", "before", "low", "high", "now", "low", "high"),
        [
            [
                fact(new.entry, "stage", form="text"),
                fact(new.entry, "metrics", name, form="key"),
                *(
                    fact(told.entry, "metrics", f"{name}{end}", form="metric") or UNDEFINED
                    for told in (old, new)
                    for end in ("", ".low", ".high")
                ),
            ]
            for old, new in pairs
            for name in sorted(set(old.run.metrics) & set(new.run.metrics))
            if not name.endswith((".low", ".high"))
        ],
    )


def _paired(before: list[Told], now: list[Told]) -> list[tuple[Told, Told]]:
    """Return the runs of each stage that both models have, where they are not the same run."""
    old = {told.run.stage: told for told in before}
    return [
        (old[told.run.stage], told)
        for told in now
        if told.run.stage in old and old[told.run.stage].id != told.id
    ]


def _differences(
    pairs: list[tuple[Told, Told]], *place: str, only: str | None = None
) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for old, new in pairs:
        both = {*leaves(old.entry, *place), *leaves(new.entry, *place)}
        for leaf in sorted(both):
            if only is not None and only not in leaf:
                continue
            found = _both(old, new, *leaf)
            if len({cell.text if cell else "" for cell in found}) > 1:
                told = new if found[1] else old
                name = fact(told.entry, *leaf, form="dotted")
                rows.append([fact(told.entry, "stage", form="text"), name, *found])
    return rows


def _table(rows: list[list[Cell]]) -> list[Block]:
    return table(("stage", "what", "before", "now"), rows) if rows else [paragraph("None.")]


def _both(old: Told, new: Told, *leaf: str, form: str = "value") -> list[Fact | None]:
    return [fact(told.entry, *leaf, form=form) for told in (old, new)]
