"""The ledger as OpenLineage events, a line each: START and COMPLETE, FAIL or ABORT of every run.

Metrics and what only this project knows stand in facets of our own, lapvqa_*, whose schemas lie in
facets/: OpenLineage has none for models (OpenLineage/OpenLineage#4035). Verdicts of gates and of
the search for leaks are TestRunFacets. Written by the client's file transport, which needs no
network; openlineage.io/spec/2-0-2.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from lapvqa import __version__, storage
from lapvqa.extras import optional
from lapvqa.lineage.ancestry import WEIGHTS, Ancestry, Told
from lapvqa.lineage.exports.parts import Artefact, checks, inputs, outputs
from lapvqa.lineage.provenance import moment
from lapvqa.lineage.runs import FAILED, FINISHED

NAMESPACE = "lapvqa"
PRODUCER = f"urn:lapvqa:{__version__}"
FACETS = Path(__file__).with_name("facets")
_SCHEMA = "urn:lapvqa:openlineage:1-0-0:{name}.json#/$defs/{name}"
_NEEDED_FOR = "export-lineage --format openlineage"


def write(ancestry: Ancestry, runs: list[Told], out: Path) -> int:
    """Write the events of these runs to ``out``; return how many there are."""
    file = optional("openlineage.client.transport.file", needed_for=_NEEDED_FOR)
    events = [event for told in runs for event in _events(ancestry, told)]
    with storage.atomic_path(out) as temporary:
        temporary.touch()
        transport = file.FileTransport(file.FileConfig(str(temporary), append=True))
        for event in events:
            transport.emit(event)
    return len(events)


def run_id(told: Told) -> str:
    """Return the UUID that stands for a run, the same in every export."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:lapvqa:run:{told.id}"))


def _events(ancestry: Ancestry, told: Told) -> list[Any]:
    base = optional("openlineage.client.generated.base", needed_for=_NEEDED_FOR)
    base.set_producer(PRODUCER)
    facets = optional("openlineage.client.facet_v2", needed_for=_NEEDED_FOR)
    run = told.run
    job = base.Job(
        NAMESPACE,
        run.stage,
        {"jobType": facets.job_type_job.JobTypeJobFacet("BATCH", "LAPVQA", "STAGE")},
    )
    read = [_input(base, facets, artefact) for artefact in inputs(ancestry, told)]
    parameters = [
        facets.execution_parameters_run.ExecutionParameter(
            key=key, value=json.dumps(value, sort_keys=True)
        )
        for key, value in sorted(run.params.items())
    ]
    begun = {
        "executionParameters": facets.execution_parameters_run.ExecutionParametersRunFacet(
            parameters
        ),
        "lapvqa_run": _own(base, "LapvqaRunFacet", _facts(told)),
    }
    ended = {**begun, **_results(base, facets, ancestry, told)}
    end = base.EventType.COMPLETE if run.outcome == FINISHED else (
        base.EventType.FAIL if run.outcome == FAILED else base.EventType.ABORT
    )  # fmt: skip
    return [
        base.RunEvent(
            eventTime=moment(run.started), eventType=base.EventType.START, job=job, inputs=read,
            run=base.Run(run_id(told), begun),
        ),
        base.RunEvent(
            eventTime=moment(run.started + run.seconds), eventType=end, job=job, inputs=read,
            outputs=[_output(base, facets, artefact) for artefact in outputs(told)],
            run=base.Run(run_id(told), ended),
        ),
    ]  # fmt: skip


def _facts(told: Told) -> dict[str, Any]:
    run = told.run
    facts = {
        "entry": told.id, "commit": run.commit, "dirty": run.dirty, "patch": run.patch,
        "code": run.code, "environment": run.environment, "counts": run.counts,
        "prefectFlowRun": run.prefect_flow_run, "prefectTaskRun": run.prefect_task_run,
        "mlflowRun": run.mlflow_run,
    }  # fmt: skip
    return {key: value for key, value in facts.items() if value not in (None, {})}


def _results(base: Any, facets: Any, ancestry: Ancestry, told: Told) -> dict[str, Any]:
    found = {}
    if told.run.metrics:
        found["lapvqa_metrics"] = _own(base, "LapvqaMetricsRunFacet", _metrics(told))
    tests = [
        facets.test_run.TestExecution(
            name=check.name, status=check.status, severity="error", type="verdict",
            actual=check.actual,
        )
        for check in checks(ancestry, told)
    ]  # fmt: skip
    if tests:
        found["test"] = facets.test_run.TestRunFacet(tests)
    return found


def _metrics(told: Told) -> dict[str, Any]:
    values = told.run.metrics
    rows = []
    for name in sorted(values):
        if name.endswith((".low", ".high")):
            continue
        system, _, metric = name.partition(".")
        ends = {end: values.get(f"{name}.{end}") for end in ("low", "high")}
        row = {"system": system, "name": metric, "value": values[name], **ends}
        rows.append({key: value for key, value in row.items() if value is not None})
    evaluations = (facts.get("evaluation", {}) for facts in told.run.files.values())
    samples = [one["samples_sha256"] for one in evaluations if "samples_sha256" in one]
    return {"metrics": rows, **({"samplesSha256": samples[0]} if samples else {})}


def _own(base: Any, name: str, values: dict[str, Any]) -> Any:
    """Return a facet of our own, which names its schema."""
    facet = base.RunFacet().with_additional_properties(**values)
    facet._schemaURL = _SCHEMA.format(name=name)
    return facet


def _input(base: Any, facets: Any, artefact: Artefact) -> Any:
    statistics = facets.input_statistics_input_dataset.InputStatisticsInputDatasetFacet
    return base.InputDataset(
        NAMESPACE, artefact.path, facets=_dataset(facets, artefact),
        inputFacets=_statistics(statistics, "inputStatistics", artefact),
    )  # fmt: skip


def _output(base: Any, facets: Any, artefact: Artefact) -> Any:
    statistics = facets.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    return base.OutputDataset(
        NAMESPACE, artefact.path, facets=_dataset(facets, artefact),
        outputFacets=_statistics(statistics, "outputStatistics", artefact),
    )  # fmt: skip


def _dataset(facets: Any, artefact: Artefact) -> dict[str, Any]:
    kind = "MODEL" if artefact.path.rpartition("/")[2] == WEIGHTS else "FILE"
    return {
        "version": facets.dataset_version_dataset.DatasetVersionDatasetFacet(artefact.version),
        "datasetType": facets.dataset_type_dataset.DatasetTypeDatasetFacet(kind),
    }


def _statistics(facet: Any, name: str, artefact: Artefact) -> dict[str, Any]:
    facts = artefact.facts
    names = {"rowCount": "rows", "size": "bytes", "fileCount": "files"}
    given = {key: facts[name] for key, name in names.items() if name in facts}
    return {name: facet(**given)} if given else {}
