"""Exports are valid by the published schemas and checkers, and a broken one is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import written_ledger
from prov.model import ProvDocument
from referencing.jsonschema import DRAFT202012

from lapvqa.errors import ConfigError
from lapvqa.lineage import ledger
from lapvqa.lineage.ancestry import Ancestry, Told
from lapvqa.lineage.exports import as_openlineage, as_prov, as_ro_crate, parts
from lapvqa.lineage.ledger import RUN
from lapvqa.lineage.runs import FAILED, INTERRUPTED, Run
from lapvqa.project import Project

REPOSITORY = Path(__file__).parents[2]
SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("ledger")
    project = written_ledger.write(root)
    for outcome in (FAILED, INTERRUPTED):
        failed = Run("tokens", 1_790_200_000.0, 1.5, outcome, params={"tokens": {"x": 1}})
        ledger.append(project, RUN, failed.payload())
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    return project


@pytest.fixture(scope="module")
def ancestry(project: Project) -> Ancestry:
    return Ancestry(ledger.entries(project))


@pytest.fixture(scope="module")
def runs(ancestry: Ancestry) -> list[Told]:
    return parts.selected(Project(Path("unused")), ancestry, None)


@pytest.fixture(scope="module")
def schemas() -> Path:
    """Published schemas, which lie beside the repository."""
    beside = REPOSITORY.parent / "shared" / "reference" / "schemas"
    folder = Path(os.environ.get("LAPVQA_SCHEMAS", beside))
    if not folder.is_dir():
        pytest.skip("the published schemas are not here (set LAPVQA_SCHEMAS)")
    return folder


@pytest.fixture(scope="module")
def faults(schemas: Path) -> Callable[[dict[str, Any]], list[str]]:
    """Return what is wrong with an event, by the schema of the spec and those of its facets."""
    files = [*schemas.glob("openlineage/**/*.json"), *as_openlineage.FACETS.glob("*.json")]
    contents = [json.loads(path.read_text()) for path in files]
    registry: referencing.Registry[Any] = referencing.Registry().with_resources(
        (one["$id"], DRAFT202012.create_resource(one)) for one in contents
    )
    by_name = {one["$id"].rpartition("/")[2].rpartition(":")[2]: one["$id"] for one in contents}

    def check(value: Any, schema: str) -> list[str]:
        validator = jsonschema.Draft202012Validator(
            {"$ref": schema}, registry=registry, format_checker=jsonschema.FormatChecker()
        )
        return [error.message for error in validator.iter_errors(value)]

    def found(event: dict[str, Any]) -> list[str]:
        every = check(event, SPEC)
        datasets = [*event["inputs"], *event.get("outputs", [])]
        for holder in (event["run"], event["job"], *datasets):
            for kind in ("facets", "inputFacets", "outputFacets"):
                for name, facet in holder.get(kind, {}).items():
                    url, _, place = facet["_schemaURL"].partition("#")
                    file = url.rpartition("/")[2].rpartition(":")[2]
                    if file not in by_name:
                        every.append(f"{name}: no schema {file}")
                    else:
                        every += check(facet, f"{by_name[file]}#{place}")
        return every

    return found


def events_of(ancestry: Ancestry, runs: list[Told], out: Path) -> list[dict[str, Any]]:
    assert as_openlineage.write(ancestry, runs, out) == 2 * len(runs)
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_openlineage_events_and_facets_are_valid(
    ancestry: Ancestry, runs: list[Told], tmp_path: Path, faults: Callable[..., list[str]]
) -> None:
    events = events_of(ancestry, runs, tmp_path / "events.ndjson")
    assert [fault for event in events for fault in faults(event)] == []
    assert [event["eventType"] for event in events][-4:] == ["START", "FAIL", "START", "ABORT"]
    again = tmp_path / "again.ndjson"
    as_openlineage.write(ancestry, runs, again)
    assert again.read_bytes() == (tmp_path / "events.ndjson").read_bytes()


def test_openlineage_tells_verdicts_metrics_and_shards(
    project: Project, ancestry: Ancestry, tmp_path: Path
) -> None:
    events = events_of(
        ancestry, parts.selected(project, ancestry, "captioning"), tmp_path / "e.ndjson"
    )
    ends = {event["job"]["name"]: event for event in events if event["eventType"] == "COMPLETE"}
    gate = ends["export"]["run"]["facets"]["test"]["tests"]
    assert [(one["name"], one["status"], one["actual"]) for one in gate] == [
        ("gate", "pass", "PROMOTE")
    ]
    evaluation = ends["evaluate@probe_nih14"]["run"]["facets"]
    (leak,) = evaluation["test"]["tests"]
    assert leak["status"] == "skip"  # nobody has looked
    assert {
        "system": "trained", "name": "mean_auc", "value": 0.7223456, "low": 0.6723456,
        "high": 0.7723456000000001,
    } in evaluation["lapvqa_metrics"]["metrics"]  # fmt: skip
    read = {one["name"]: one for one in ends["pretrain"]["inputs"]}
    assert set(read) == {
        "data/images", "data/images.parquet", "data/firewall/account.json",
    }  # the shards are one folder  # fmt: skip
    searched = ends["firewall"]["run"]["facets"]["test"]["tests"]
    assert [(one["name"], one["status"]) for one in searched] == [("leakage", "pass")]
    assert read["data/images"]["inputFacets"]["inputStatistics"]["fileCount"] == 1
    weights = {one["name"]: one for one in ends["export"]["outputs"]}[
        "models/captioning/encoder.safetensors"
    ]
    assert weights["facets"]["datasetType"]["datasetType"] == "MODEL"


@pytest.mark.parametrize(
    "damage",
    [
        lambda event: event["run"].update(runId="no uuid"),
        lambda event: event.update(eventTime=7),
        lambda event: event["job"].pop("name"),
        lambda event: event["inputs"][0].pop("namespace"),
        lambda event: event["run"]["facets"]["lapvqa_run"].update(entry="short"),
        lambda event: event["run"]["facets"]["lapvqa_metrics"]["metrics"][0].pop("value"),
        lambda event: event["run"]["facets"]["lapvqa_metrics"].update(samplesSha256="5a"),
        lambda event: event["run"]["facets"]["test"]["tests"][0].pop("status"),
        lambda event: event["inputs"][0]["facets"]["version"].pop("datasetVersion"),
    ],
)  # fmt: skip
def test_a_broken_event_is_found(
    project: Project,
    ancestry: Ancestry,
    tmp_path: Path,
    faults: Callable[..., list[str]],
    damage: Callable[[dict[str, Any]], object],
) -> None:
    event = events_of(
        ancestry, parts.selected(project, ancestry, "captioning"), tmp_path / "e.ndjson"
    )[-1]
    assert faults(event) == []
    damage(event)
    assert faults(event)


def test_prov_comes_back_equal_and_a_missing_relation_does_not(
    ancestry: Ancestry, runs: list[Told], tmp_path: Path
) -> None:
    out = tmp_path / "prov.json"
    as_prov.write(ancestry, runs, out)
    written = as_prov.build(ancestry, runs)
    assert ProvDocument.deserialize(str(out)) == written
    content = json.loads(out.read_text())
    used = sum(len(told.run.deps) for told in runs)
    made = sum(len(told.run.outs) for told in runs)
    assert (len(content["used"]), len(content["wasGeneratedBy"])) == (used, made)
    content["used"].popitem()
    assert ProvDocument.deserialize(content=json.dumps(content)) != written


def test_a_crate_names_each_artefact_once_by_its_digest(
    project: Project, ancestry: Ancestry, runs: list[Told], tmp_path: Path
) -> None:
    crate = tmp_path / "crate"
    as_ro_crate.write(project, ancestry, runs, crate)
    first = (crate / "ro-crate-metadata.json").read_bytes()
    as_ro_crate.write(project, ancestry, runs, crate)  # an existing crate is replaced
    assert (crate / "ro-crate-metadata.json").read_bytes() == first
    assert sorted(path.name for path in crate.iterdir()) == [
        "dvc.yaml", "parameters.json", "ro-crate-metadata.json",
    ]  # fmt: skip
    graph = json.loads((crate / "ro-crate-metadata.json").read_text())["@graph"]
    assert len({one["@id"] for one in graph}) == len(graph)
    digests = {one["sha256"] for one in graph if "sha256" in one}
    known = {f["sha256"] for told in runs for f in told.run.files.values() if "sha256" in f}
    assert digests == known
    (crate / "my notes.txt").write_text("of a person")
    (tmp_path / "mine").mkdir()
    for folder in (crate, tmp_path / "mine"):
        with pytest.raises(ConfigError, match="expected a new folder, or a crate of this command"):
            as_ro_crate.write(project, ancestry, runs, folder)
    assert (crate / "my notes.txt").exists()


def test_no_export_holds_a_patients_key(
    project: Project, ancestry: Ancestry, runs: list[Told], tmp_path: Path
) -> None:
    as_openlineage.write(ancestry, runs, tmp_path / "e.ndjson")
    as_prov.write(ancestry, runs, tmp_path / "prov.json")
    as_ro_crate.write(project, ancestry, runs, tmp_path / "crate")
    for path in tmp_path.rglob("*"):
        text = path.read_text() if path.is_file() else ""
        assert not [key for key in written_ledger.PATIENTS if key in text], path


@pytest.fixture
def roc_validator(schemas: Path, tmp_path: Path) -> Callable[[Path], dict[str, Any]]:
    """Ask roc-validator, which lives in an environment of its own (`make crate`)."""
    python = os.environ.get("LAPVQA_ROC_VALIDATOR")
    if not python:
        pytest.skip("LAPVQA_ROC_VALIDATOR names no Python with roc-validator (make crate)")
    context = schemas / "ro-crate" / "context-1.1.jsonld"

    def ask(crate: Path) -> dict[str, Any]:
        script = Path(__file__).with_name("roc_check.py")
        scratch = tmp_path / f"{crate.name}-scratch"
        scratch.mkdir()
        done = subprocess.run(
            [python, str(script), str(crate), str(context), str(scratch)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return ask


def test_roc_validator_passes_a_crate_and_refuses_a_broken_one(
    project: Project,
    ancestry: Ancestry,
    runs: list[Told],
    tmp_path: Path,
    roc_validator: Callable[[Path], dict[str, Any]],
) -> None:
    as_ro_crate.write(project, ancestry, runs, tmp_path / "crate")
    answer = roc_validator(tmp_path / "crate")
    statistics = answer["statistics"]
    # A profile that it does not know it would skip in silence.
    assert "provenance-run-crate-0.5" in statistics["profiles"]
    assert answer["passed"], answer["issues"]
    assert statistics["total_passed_checks"] == statistics["total_checks"] >= 85
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "crate", broken)
    metadata = json.loads((broken / "ro-crate-metadata.json").read_text())
    action = next(one for one in metadata["@graph"] if one["@type"] == "CreateAction")
    del action["instrument"]
    (broken / "ro-crate-metadata.json").write_text(json.dumps(metadata))
    assert not roc_validator(broken)["passed"]


def test_an_empty_ledger_has_nothing_to_export() -> None:
    with pytest.raises(ConfigError, match="expected runs in the ledger, found none"):
        parts.selected(Project(Path("unused")), Ancestry([]), None)
