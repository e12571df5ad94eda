"""The ledger as a Provenance Run Crate: a folder whose ro-crate-metadata.json says who made what.

w3id.org/ro/wfrun/provenance/0.5, which stands on RO-Crate 1.1. The crate holds dvc.yaml (the
workflow) and parameters.json; artefacts are named by digest, because data stays where it is.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lapvqa import __version__, storage
from lapvqa.errors import ConfigError
from lapvqa.extras import optional
from lapvqa.lineage.ancestry import Ancestry, Told
from lapvqa.lineage.exports.parts import Artefact, inputs, outputs
from lapvqa.lineage.provenance import moment
from lapvqa.lineage.runs import FINISHED
from lapvqa.project import Project

METADATA = "ro-crate-metadata.json"
_VERSION = "1.1"
"""The profiles stand on it; rocrate writes a later one if not asked."""
_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
_SHA256 = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}
"""Not in the context of 1.1."""
_STATUS = "http://schema.org/{}ActionStatus"
_WORKFLOW, _PARAMETERS = "dvc.yaml", "parameters.json"


def write(project: Project, ancestry: Ancestry, runs: list[Told], out: Path) -> int:
    """Write a crate of these runs into the new folder ``out``; return how many entities it has.

    Raises ConfigError if the folder exists and is no crate that was written here: it is replaced
    with all that it holds.
    """
    if out.exists() and not _is_own(out):
        raise ConfigError(
            f"expected a new folder, or a crate of this command to replace, found {out.name} with "
            "other files",
            hint="name another folder by --out",
        )
    crate = _Builder(ancestry, runs).crate
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    shutil.copyfile(project.dvc_yaml, temporary / _WORKFLOW)
    parameters = {told.run.stage: told.run.params for told in runs}
    storage.write_json(temporary / _PARAMETERS, parameters)
    storage.write_json(temporary / METADATA, crate.metadata.generate())
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    return len(list(crate.get_entities()))


def _is_own(folder: Path) -> bool:
    """Tell whether a folder holds a crate as ``write`` leaves it, and nothing else."""
    names = {METADATA, _WORKFLOW, _PARAMETERS}
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != names:
        return False
    return b"urn:lapvqa:" in (folder / METADATA).read_bytes()


class _Builder:
    """Fills a crate, in the order of the profile: workflow, steps, tools, then what ran."""

    def __init__(self, ancestry: Ancestry, runs: list[Told]) -> None:
        rocrate = optional("rocrate.rocrate", needed_for="export-lineage --format ro-crate")
        self._entity = optional("rocrate.model", needed_for="export-lineage").ContextEntity
        self._ancestry = ancestry
        self.crate = rocrate.ROCrate(version=_VERSION)
        self.crate.metadata.extra_terms.update(_SHA256)
        self._artefacts: dict[str, Any] = {}
        self._root(runs)
        self._workflow = self._add_workflow(runs)
        self._add_runs(runs)

    def _add(self, id: str, kind: str | list[str], **properties: Any) -> Any:
        entity = self._entity(self.crate, id, {"@type": kind})
        for key, value in properties.items():
            if value not in (None, [], {}):
                entity[key] = value
        return self.crate.add(entity)

    def _root(self, runs: list[Told]) -> None:
        root = self.crate.root_dataset
        root["name"] = "Runs of a LAPVQA pipeline"
        root["description"] = (
            "Which run of which stage made what, from the project's ledger; no data, no identities."
        )
        last = max(told.run.started + told.run.seconds for told in runs)
        root["datePublished"] = moment(last)
        root["license"] = self._add(
            "https://www.apache.org/licenses/LICENSE-2.0", "CreativeWork", name="Apache-2.0"
        )
        root["conformsTo"] = [
            self._add(id, "CreativeWork", name=name, version=id.rpartition("/")[2])
            for id, name in _PROFILES.items()
        ]

    def _add_workflow(self, runs: list[Told]) -> Any:
        language = self._add(
            "https://dvc.org/doc/user-guide/project-structure/dvcyaml-files", "ComputerLanguage",
            name="DVC stages", url="https://dvc.org",
        )  # fmt: skip
        self._tools = {
            stage: self._add(
                f"#tool-{stage}",
                "SoftwareApplication",
                name=f"python -m lapvqa.stage {stage}",
                softwareVersion=__version__,
            )
            for stage in dict.fromkeys(told.run.stage for told in runs)
        }
        self._steps = {
            stage: self._add(
                f"{_WORKFLOW}#{stage}", "HowToStep", name=stage, position=str(place),
                workExample=tool,
            )
            for place, (stage, tool) in enumerate(self._tools.items(), start=1)
        }  # fmt: skip
        workflow = self._add(
            _WORKFLOW, ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            name="LAPVQA's stages", programmingLanguage=language,
            step=list(self._steps.values()), hasPart=list(self._tools.values()),
        )  # fmt: skip
        self.crate.root_dataset["mainEntity"] = workflow
        return workflow

    def _add_runs(self, runs: list[Told]) -> None:
        read: list[Any] = []
        written: list[Any] = []
        controls = []
        for told in runs:
            used = [self._artefact(one) for one in inputs(self._ancestry, told)]
            made = [self._artefact(one) for one in outputs(told)]
            read, written = read + used, written + made
            action = self._action(
                f"#run-{told.id}", told.run.stage, self._tools[told.run.stage], [told], used, made
            )
            controls.append(
                self._add(
                    f"#control-{told.id}", "ControlAction", name=f"start {told.run.stage}",
                    instrument=self._steps[told.run.stage], object=action,
                )
            )  # fmt: skip
        parameters = self._add(
            _PARAMETERS, "File", name="parameters of each stage", encodingFormat="application/json"
        )
        artefacts = [*self._artefacts.values(), parameters]
        whole = self._action(
            "#pipeline", "the whole pipeline", self._workflow, runs,
            [*(one for one in read if one not in written), parameters], written,
        )  # fmt: skip
        engine = self._add("#engine", "SoftwareApplication", name="DVC, started by Prefect")
        self._add(
            "#organize", "OrganizeAction", name="run of the pipeline", instrument=engine,
            object=controls, result=whole, startTime=whole["startTime"], endTime=whole["endTime"],
        )  # fmt: skip
        root = self.crate.root_dataset
        root["mentions"] = [whole]
        root["hasPart"] = [self._workflow, *artefacts]

    def _action(
        self, id: str, name: str, instrument: Any, runs: list[Told], used: list[Any],
        made: list[Any],
    ) -> Any:  # fmt: skip
        finished = all(told.run.outcome == FINISHED for told in runs)
        status = _STATUS.format("Completed" if finished else "Failed")
        return self._add(
            id, "CreateAction", name=name, instrument=instrument,
            object=_once(used), result=_once(made), actionStatus=status,
            startTime=moment(min(told.run.started for told in runs)),
            endTime=moment(max(told.run.started + told.run.seconds for told in runs)),
        )  # fmt: skip

    def _artefact(self, artefact: Artefact) -> Any:
        id = f"urn:lapvqa:artefact:{(artefact.run or artefact.md5)[:16]}:{artefact.path}"
        if id not in self._artefacts:
            size = artefact.facts.get("bytes")
            self._artefacts[id] = self._add(
                id, "Dataset" if artefact.is_folder else "File", name=artefact.path,
                sha256=artefact.facts.get("sha256"), identifier=f"md5:{artefact.md5}",
                contentSize=None if size is None else str(size),
            )  # fmt: skip
        return self._artefacts[id]


def _once(entities: list[Any]) -> list[Any]:
    return list({entity.id: entity for entity in entities}.values())
