"""A card says what the ledger says, each number with its place; the checker finds all else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import written_ledger
from huggingface_hub import ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from lapvqa.errors import ConfigError
from lapvqa.lineage import chosen, contents, ledger, recording
from lapvqa.lineage.ancestry import Ancestry
from lapvqa.lineage.card import check, document, html, markdown
from lapvqa.lineage.ledger import Entry
from lapvqa.lineage.runs import Run
from lapvqa.project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return written_ledger.write(tmp_path_factory.mktemp("ledger"))


@pytest.fixture(scope="module")
def entries(project: Project) -> list[Entry]:
    return ledger.entries(project)


def card_of(entries: list[Entry], id: str | None = None) -> tuple[str, str]:
    """Return the card of a run, else of the last model, as Markdown and as HTML."""
    ancestry = Ancestry(entries)
    models = [told for told in ancestry.runs.values() if told.weights and id in (None, told.id)]
    card = document.card(ancestry, models[-1])
    return markdown.render(card), html.render(card)


def read(page: str) -> str:
    """Return a page as a reader sees it, without the places."""
    return re.sub(r"<!--.*?-->|  # @\S+", "", page)


def test_same_ledger_same_bytes_and_every_number_has_its_place(entries: list[Entry]) -> None:
    for page in card_of(entries):
        assert page in card_of(list(entries))
        assert check.faults(page, entries) == []
        assert check.count(page) > 150


def test_it_tells_what_people_ask(entries: list[Entry]) -> None:
    page = read(card_of(entries)[0])
    for line in (
        "| images | 7 | 2 | 2 |",
        "| patients | 6 | 1 | 1 |",
        "| unknown | none | none | 1 |",  # view
        "| file | NOT_CHEST | 2 |",
        "| firewall | excluded_images | 3 |",
        "| pretrain | pretrain.lr | 0.0002 |",
        "| trained.mean_auc | 0.722 | 0.672 | 0.772 |",
        "| pretrain | 3600.2 | gpu-node-7 | 1 x NVIDIA H200 |",
        "Not recorded: no evaluation says whether training saw its test samples.",
    ):
        assert line in page


def test_it_tells_what_changed_since_the_predecessor(entries: list[Entry]) -> None:
    page = read(card_of(entries)[0])
    assert "| pretrain | pretrain.lr | 0.0001 | 0.0002 |" in page
    assert "| ingest | data/rejects.parquet.counts.file.DUPLICATE_UID | 2 | 1 |" in page
    assert "| trained.mean_auc | 0.712 | 0.662 | 0.762 | 0.722 | 0.672 | 0.772 |" in page
    for heading in ("Description of modifications", "Modification protocol", "Impact assessment"):
        assert f"### {heading}" in page
    first = next(t for t in Ancestry(entries).runs.values() if t.weights)
    assert "There is no predecessor" in card_of(entries, first.id)[0]


@pytest.mark.parametrize("form", [0, 1], ids=["markdown", "html"])
def test_a_number_that_the_ledger_does_not_have_is_found(entries: list[Entry], form: int) -> None:
    page = card_of(entries)[form]
    for shown in ("0.722<", "3600.2<", "61.5<", "2026-09-22<", "27000<"):
        assert shown in page
        (fault, *_) = check.faults(page.replace(shown, f"8{shown[1:]}", 1), entries)
        assert "the ledger '" in fault
    for orphan in ("AUC 0.99", "seen by 3 readers", "1"):
        words = "Features of frontal"
        (fault,) = check.faults(page.replace(words, f"{orphan} {words}"), entries)
        assert "names no place in the ledger" in fault
    stranger = page.replace("#metric", "#value", 1)
    assert check.faults(stranger, entries)
    assert check.faults(re.sub("@[0-9a-f]{12}", "@" + "0" * 12, page, count=1), entries)


@pytest.mark.parametrize("form", [0, 1], ids=["markdown", "html"])
def test_a_card_whose_every_number_is_right_is_still_held_line_by_line(
    entries: list[Entry], form: int
) -> None:
    page = card_of(entries)[form]
    assert check.differences(page, entries) == []
    lines = page.split("\n")
    row = next(n for n, line in enumerate(lines) if "images.parquet/counts/split/train" in line)
    cut = "</td><td>" if form else " | "
    cells = lines[row].split(cut)
    cells[1:3] = cells[2:0:-1]
    swapped = [*lines[:row], cut.join(cells), *lines[row + 1 :]]
    for damaged in (swapped, lines[:row] + lines[row + 1 :], lines[:row]):
        text = "\n".join(damaged)
        assert not check.faults(text, entries)
        (said,) = check.differences(text, entries)
        assert said.startswith(f"line {row + 1}: the card says")
    assert check.differences("", entries) == ["it names no model of this ledger at its beginning"]


def test_a_card_that_the_ledger_has_outgrown_says_so(tmp_path: Path) -> None:
    project = written_ledger.write(tmp_path, generations=1)
    page = card_of(before := ledger.entries(project))[0]
    model = next(told for told in Ancestry(before).runs.values() if told.weights)
    ledger.append(project, ledger.LOOK, {"what": "nothing of this model"})
    assert check.differences(page, ledger.entries(project)) == []
    said = {"runs": [model.id], "verdict": "contaminated"}
    ledger.append(project, ledger.DECISION, said)
    (difference,) = check.differences(page, ledger.entries(project))
    assert "the ledger gives '| " in difference
    assert f"after entry {len(before)} of {len(before) + 2} it was the card" in difference


def test_an_erased_entry_leaves_its_numbers_without_a_place(tmp_path: Path) -> None:
    project = written_ledger.write(tmp_path, generations=1)
    page = card_of(ledger.entries(project))[0]
    evaluation = next(e for e in ledger.entries(project) if "evaluate" in str(e.payload))
    ledger.erase_payloads(project, {evaluation.id}, {"why": "asked for"})
    assert any("has no place" in fault for fault in check.faults(page, ledger.entries(project)))
    assert check.faults(card_of(ledger.entries(project))[0], ledger.entries(project)) == []


HOSTILE = st.text() | st.sampled_from(
    ["a|b", "<!--@x-->", "--", "-->", "x  # @0/y#value", "\r\n", "&lt;7", "~1/%2F", "", "<b>7</b>"]
)


@given(st.dictionaries(HOSTILE, HOSTILE | st.integers() | st.booleans(), max_size=5))
@settings(max_examples=40)
def test_whatever_stands_in_the_ledger_the_card_holds(values: dict[str, object]) -> None:
    weights = "models/7/encoder.safetensors"
    run = Run("export", 1.0, 2.0, params=values, counts=values, outs={weights: "m"})
    before = Run("export", 0.0, 2.0, params={"x": "7"}, outs={weights: "n"})
    entries = [
        Entry(number, str(number) * 64, "run", 1.0, json.loads(json.dumps(one.payload())))
        for number, one in enumerate((before, run))
    ]
    for page in card_of(entries):
        assert check.faults(page, entries) == []
        assert check.faults(f"{page} 7", entries)


def test_hugging_face_reads_the_model_index(entries: list[Entry]) -> None:
    front = card_of(entries)[0].split("---\n")[1]
    data = YAML(typ="safe").load(front)
    name, results = model_index_to_eval_results(data["model-index"])
    assert name == "models/captioning/encoder.safetensors"
    assert [(one.metric_type, one.metric_value) for one in results] == [
        ("trained.mean_auc", 0.7223456),
        ("untrained.mean_auc", 0.7223456),
    ]
    assert results[0].dataset_revision == "5a" * 32
    assert results[0].metric_args == {"low": 0.6723456, "high": 0.7723456000000001}
    assert ModelCardData(license=data["license"], model_name=name, eval_results=results).to_dict()


def test_what_an_evaluation_says_of_leaks_and_slices_is_kept_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    told = written_ledger.METRICS | {
        "contaminated": {"why": ["seen"], "counts": {"patients": 2}},
        "slices": {"AP": {"trained": {"mean_auc": 0.5}}},
    }  # fmt: skip
    path.write_text(json.dumps(told))
    kept = contents.facts(path)["evaluation"]
    assert kept["contaminated"]["counts"] == {"patients": 2}
    project = written_ledger.write(tmp_path / "project", generations=1)
    entry = next(e for e in ledger.entries(project) if "probe_nih14/metrics" in str(e.payload))
    assert entry.payload is not None
    entry.payload["files"]["results/probe_nih14/metrics.json"]["evaluation"] = kept
    entries = [entry if one.id == entry.id else one for one in ledger.entries(project)]
    page = card_of(entries)[0]
    assert "| evaluate@probe_nih14 | patients | 2 |" in read(page)
    assert "Contaminated: values may be too high" in page
    assert "| AP | mean_auc | 0.5 |" in read(page)
    assert check.faults(page, entries) == []


def test_a_run_that_is_recorded_keeps_what_its_files_say(tmp_path: Path) -> None:
    project = written_ledger.write(tmp_path, generations=1)
    rows = "".join(
        f"    - {{path: {path}, md5: {'a' * 32}}}\n"
        for path in ("data/images.parquet", "data/rejects.parquet", "data/studies.parquet")
    )
    project.dvc_lock.write_text(f"schema: '2.0'\nstages:\n  ingest:\n    cmd: x\n    outs:\n{rows}")
    id = recording.record(project, Run("ingest", 1.0, 2.0), recording.Commit(None, None))
    told = Ancestry(ledger.entries(project)).runs[id].run
    assert told.files["data/images.parquet"]["counts"]["split"] == {
        "test": 2, "train": 6, "validate": 2,
    }  # fmt: skip
    assert told.files["data/rejects.parquet"]["counts"]["study"] == {"NO_REPORT": 1}
    assert told.files["data/studies.parquet"]["counts"]["patients"]["train"] == 6


@pytest.mark.parametrize("damage", [b"", b"{", b"no Parquet"])
@pytest.mark.parametrize("name", ["metrics.json", "images.parquet", "rejects.parquet"])
def test_a_damaged_file_tells_nothing(tmp_path: Path, name: str, damage: bytes) -> None:
    (tmp_path / name).write_bytes(damage)
    assert contents.facts(tmp_path / name) == {}


def test_a_registered_model_is_found_by_its_alias_and_version(tmp_path: Path) -> None:
    project = written_ledger.write(tmp_path)
    models = [told for told in Ancestry(ledger.entries(project)).runs.values() if told.weights]
    for version, told in enumerate(models, start=1):
        digest = told.run.files[str(told.weights)]["sha256"]
        said = {"name": "lapvqa-encoder", "version": str(version), "aliases": ["champion"]}
        ledger.append(project, ledger.MODEL, said | {"sha256": digest})
    entries = ledger.entries(project)
    ancestry = Ancestry(entries)
    for name in ("champion", "lapvqa-encoder@champion", "models:/lapvqa-encoder/2", "captioning"):
        assert chosen.model(project, ancestry, name).id == models[-1].id
    assert chosen.model(project, ancestry, "lapvqa-encoder/1").id == models[0].id
    page = card_of(entries)[0]
    assert '| version | "2" |' in read(page)
    assert '| version | "1" |' not in read(page)
    assert check.faults(page, entries) == []


def test_what_is_no_model_has_no_card(project: Project, entries: list[Entry]) -> None:
    with pytest.raises(ConfigError, match="expected a model, found a run of ingest"):
        chosen.model(project, Ancestry(entries), "data/images.parquet")
    with pytest.raises(ConfigError, match="is no file, metric or run"):
        chosen.model(project, Ancestry(entries), "unheard-of")
