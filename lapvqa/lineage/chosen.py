"""The run or model that a card, a bundle or an export tells of, by any name of ``targets``."""

from __future__ import annotations

from lapvqa.errors import ConfigError
from lapvqa.lineage import index, targets
from lapvqa.lineage.ancestry import Ancestry, Told
from lapvqa.lineage.runs import as_asked
from lapvqa.lineage.targets import Target
from lapvqa.project import Project


def run(project: Project, ancestry: Ancestry, asked: str) -> Told:
    """Return the run that is meant; of several (a Prefect run, a folder) the latest.

    ConfigError if nothing is called so, or if no run of the ledger left it.
    """
    return _candidates(project, ancestry, asked)[-1]


def model(project: Project, ancestry: Ancestry, asked: str) -> Told:
    """Return the run that made the model that is meant; ConfigError if it is none."""
    found = _candidates(project, ancestry, asked)
    models = [told for told in found if told.weights]
    if not models:
        raise ConfigError(
            f"expected a model, found a run of {found[-1].run.stage}",
            hint="name a folder such as models/captioning, or a run of export",
        )
    return models[-1]


def _candidates(project: Project, ancestry: Ancestry, asked: str) -> list[Told]:
    target = index.ask(project, lambda database: targets.find(project, database, asked))
    found = [told for told in ancestry.runs.values() if told.id in _ids(target)]
    numbers = set(target.runs)
    found += [told for told in ancestry.runs.values() if told.entry.number in numbers]
    if not found:
        raise ConfigError(
            f"expected a run of the ledger, found that none left {as_asked(asked)} "
            f"({target.remark or target.kind})",
            hint="name a model, an output, a stage or a run; of what only dvc.lock tells "
            "`lapvqa sync` makes an entry",
        )
    return sorted(found, key=lambda told: told.entry.number)


def _ids(target: Target) -> set[str]:
    """Return the ids of runs; of equal bytes that several left at one path the first is meant."""
    first: dict[str, str] = {}
    for key in target.artefacts:
        if key.run is not None:
            first.setdefault(key.path, key.run)
    return set(first.values())
