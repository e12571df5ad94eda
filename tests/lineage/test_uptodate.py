"""What is stale and why, on a toy project that real DVC made; DVC agrees with every verdict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lapvqa import identity, storage
from lapvqa.project import Project
from lapvqa.schemas import INVENTORY
from lapvqa.uptodate import manifest, stagefile, staleness
from lapvqa.uptodate.hashes import Hasher

Dvc = Callable[..., str]
DOWNSTREAM_OF_TOKENS = ["tokens", "evaluate@probe_nih14", "evaluate@rrg", "report"]


def reasons(project: Project) -> dict[str, list[str]]:
    return {state.name: state.reasons for state in staleness.check(project) if state.stale}


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(params=[True, False], ids=["manifest", "no-manifest"])
def remembered(request: pytest.FixtureRequest, toy: Project) -> Project:
    """The toy with and without a manifest: the verdicts must be the same."""
    if request.param:
        manifest.remember(toy)
    return toy


def test_after_a_run_nothing_is_stale(remembered: Project) -> None:
    states = staleness.check(remembered)
    assert [state.name for state in states] == ["inventory", "ingest", *DOWNSTREAM_OF_TOKENS]
    assert staleness.nothing_to_do(states)


def test_nothing_known_is_not_nothing_to_do() -> None:
    assert not staleness.nothing_to_do([])


def test_a_touch_makes_nothing_stale(remembered: Project) -> None:
    for path in ("lapvqa/text/tokens.py", "data/tokens/tokens-00000.parquet", "params.yaml"):
        os.utime(remembered.root / path, (1, 1))
    assert reasons(remembered) == {}


def test_compiled_code_is_ignored_as_dvc_ignores_it(remembered: Project) -> None:
    (remembered.root / "lapvqa/text/__pycache__/more.pyc").write_text("x")
    assert reasons(remembered) == {}


def test_a_parameter_names_old_and_new_value_and_the_stages_below(remembered: Project) -> None:
    replace(remembered.params, "max_length: 64 ", "max_length: 128 ")
    assert reasons(remembered) == {
        "tokens": ["params.tokens.max_length 64 -> 128"],
        "evaluate@probe_nih14": ["upstream tokens"],
        "evaluate@rrg": ["upstream tokens"],
        "report": ["upstream evaluate@probe_nih14", "upstream evaluate@rrg"],
    }


def test_a_parameter_of_one_evaluation_leaves_the_other_alone(remembered: Project) -> None:
    replace(remembered.params, "max_new_tokens: 64", "max_new_tokens: 65")
    assert reasons(remembered) == {
        "evaluate@rrg": ["params.evaluate.rrg.max_new_tokens 64 -> 65"],
        "report": ["upstream evaluate@rrg"],
    }


def test_comments_of_params_yaml_do_not_count(remembered: Project) -> None:
    remembered.params.write_text("# a remark\n" + remembered.params.read_text())
    assert reasons(remembered) == {}


def test_changed_code_is_named_by_file_where_it_is_known(toy: Project) -> None:
    manifest.remember(toy)
    (toy.root / "lapvqa/text/sections.py").write_text("SECTIONS = 2\n")
    assert reasons(toy)["tokens"] == ["code lapvqa/text/sections.py changed"]
    (toy.root / "lapvqa/text/new.py").write_text("NEW = 1\n")
    assert reasons(toy)["tokens"] == [
        "code lapvqa/text/new.py changed",
        "code lapvqa/text/sections.py changed",
    ]


def test_changed_code_is_named_by_folder_without_a_manifest(toy: Project) -> None:
    (toy.root / "lapvqa/text/sections.py").write_text("SECTIONS = 2\n")
    assert reasons(toy)["tokens"] == ["code lapvqa/text changed"]


def test_deleted_code_and_output(remembered: Project) -> None:
    shutil.rmtree(remembered.root / "lapvqa/dicom")
    shutil.rmtree(remembered.tokens_dir)
    found = reasons(remembered)
    assert found["ingest"] == ["code lapvqa/dicom missing"]
    assert found["tokens"] == ["output data/tokens missing", "upstream ingest"]


def test_an_output_written_by_hand_is_seen(remembered: Project) -> None:
    (remembered.root / "results/rrg/metrics.json").unlink()
    (remembered.root / "results/rrg/metrics.json").write_text('{"mean_auc": 1.0}')
    assert reasons(remembered) == {
        "evaluate@rrg": ["output results/rrg/metrics.json changed"],
        "report": ["upstream evaluate@rrg"],
    }


def test_new_changed_and_gone_files_of_the_source(remembered: Project) -> None:
    study = remembered.root / "demo/mimic-cxr/files/p10/s1"
    for name in ("c.dcm", "d.dcm"):
        (study / name).write_text(name)
    (study / "a.dcm").write_text("longer")
    (study / "b.dcm").unlink()
    found = reasons(remembered)
    assert found["inventory"] == ["folder source: 2 files new, 1 changed, 1 gone"]
    assert found["ingest"] == [
        "input data/inventory/source.parquet: 2 files new, 1 changed, 1 gone"
    ]
    assert found["tokens"] == ["upstream ingest"]


def test_new_files_of_one_evaluation_set_do_not_concern_ingest(remembered: Project) -> None:
    (remembered.root / "demo/nih-cxr14/images/2.png").write_text("2")
    assert reasons(remembered) == {
        "inventory": ["folder nih14: 1 file new"],
        "evaluate@probe_nih14": ["input data/inventory/nih14.parquet: 1 file new"],
        "report": ["upstream evaluate@probe_nih14"],
    }


def test_files_that_came_during_the_run_are_not_hidden(toy: Project) -> None:
    (toy.root / "demo/mimic-cxr/files/p10/s1/late.dcm").write_text("late")
    manifest.remember(toy)
    assert reasons(toy)["ingest"] == ["input data/inventory/source.parquet: 1 file new"]


def test_another_source_in_local_yaml_is_seen(remembered: Project, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "x.dcm").write_text("x")
    remembered.local.write_text(f"paths:\n  source: {tmp_path / 'own'}\n")
    assert reasons(remembered)["ingest"] == [
        "input data/inventory/source.parquet: 1 file new, 2 gone"
    ]


def test_a_missing_source_is_said(remembered: Project) -> None:
    shutil.rmtree(remembered.root / "demo/mimic-cxr")
    assert "mimic-cxr" in reasons(remembered)["inventory"][0]


def test_another_key_for_the_identifiers_is_seen(toy: Project) -> None:
    table = pq.read_table(toy.inventory("source"))
    key_file = toy.state / "deid.key"
    key_file.parent.mkdir(exist_ok=True)
    key_file.write_text("a long random text")
    marked = table.replace_schema_metadata({"deid_key": identity.key_id(b"a long random text")})
    storage.write_table(toy.inventory("source"), marked, INVENTORY)
    remember_as_run(toy)
    assert reasons(toy) == {}
    key_file.write_text("another random text")
    assert reasons(toy)["ingest"] == [
        "input data/inventory/source.parquet: the key that hides identifiers is another"
    ]
    toy.uptodate.unlink()
    assert "ingest" in reasons(toy)


def remember_as_run(project: Project) -> None:
    """Take the files as they are for the run's: dvc.lock gets their md5, then remember."""
    hasher = Hasher(project, {})
    text = project.dvc_lock.read_text()
    for lock in stagefile.locked(project).values():
        for path, md5 in (lock.deps | lock.outs).items():
            text = text.replace(md5, str(hasher.md5(path)))
    project.dvc_lock.write_text(text)
    manifest.remember(project)


def test_one_stage_rerun_alone_leaves_the_next_stale(remembered: Project, dvc: Dvc) -> None:
    replace(remembered.params, "max_length: 64 ", "max_length: 128 ")
    dvc(remembered.root, "repro", "-q", "-s", "tokens")
    found = reasons(remembered)
    assert "tokens" not in found
    assert found["evaluate@rrg"][0].startswith("input data/tokens")


def test_definition_changes_are_named(remembered: Project) -> None:
    replace(remembered.dvc_yaml, "lapvqa/text]", "toy.py]")
    replace(remembered.dvc_yaml, "toy.py report", "toy.py  report")
    found = reasons(remembered)
    assert found["tokens"] == ["dvc.yaml: deps - lapvqa/text", "dvc.yaml: deps + toy.py"]
    assert found["report"][0] == "dvc.yaml: cmd changed"


def test_a_new_stage_was_never_run(remembered: Project) -> None:
    replace(remembered.dvc_yaml, "      rrg: {", "      rrg2: {data: toy.py}\n      rrg: {")
    replace(remembered.dvc_yaml, '"evaluate.${key}"', "report")
    assert reasons(remembered)["evaluate@rrg2"] == ["never run"]


def test_a_language_unknown_here_is_left_to_dvc(remembered: Project) -> None:
    replace(remembered.dvc_yaml, "    always_changed: true\n", "    wdir: .\n")
    states = staleness.check(remembered)
    assert states
    assert not any(state.known for state in states)
    assert not staleness.nothing_to_do(states)


def test_too_much_to_hash_is_left_to_dvc(toy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest.remember(toy)
    monkeypatch.setattr(staleness, "_HASH_BUDGET", 10)
    shutil.copytree(toy.tokens_dir, toy.root / "moved")
    shutil.rmtree(toy.tokens_dir)
    (toy.root / "moved").rename(toy.tokens_dir)  # same bytes, other inodes
    found = {state.name: state for state in staleness.check(toy)}
    assert not found["tokens"].known
    assert found["ingest"].known
    assert not found["ingest"].stale


def test_bare_dvc_repro_leaves_nothing_to_do(remembered: Project, dvc: Dvc) -> None:
    replace(remembered.params, "examples: 8 ", "examples: 9 ")
    assert list(reasons(remembered)) == ["report"]
    dvc(remembered.root, "repro", "-q")
    assert reasons(remembered) == {}


def test_before_the_first_run_every_stage_is_due(toy: Project) -> None:
    toy.dvc_lock.unlink()
    states = staleness.check(toy)
    assert [state.reasons for state in states] == [["never run"]] * 6
    assert all(state.known for state in states)


def test_dvc_agrees(toy: Project, dvc: Dvc) -> None:
    manifest.remember(toy)
    replace(toy.params, "max_length: 64 ", "max_length: 128 ")
    (toy.root / "lapvqa/dicom/read.py").write_text("READ = 2\n")
    (toy.root / "reports/index.html").unlink()
    status = json.loads(dvc(toy.root, "status", "--json"))
    status.pop("inventory")  # always_changed: DVC cannot tell
    own = {
        name
        for name, found in reasons(toy).items()
        if any(not reason.startswith("upstream") for reason in found)
    }
    assert own == set(status) == {"ingest", "tokens", "report"}


def test_the_decision_loads_nothing_heavy(toy: Project) -> None:
    manifest.remember(toy)
    code = (
        "import sys; from pathlib import Path\n"
        "from lapvqa.uptodate import staleness; from lapvqa.project import Project\n"
        "assert staleness.nothing_to_do(staleness.check(Project(Path.cwd())))\n"
        "heavy = {'torch', 'prefect', 'mlflow', 'dvc', 'pyarrow', 'pandas', 'numpy', 'pydicom',"
        " 'pydantic', 'ruamel.yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=toy.root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_copy_looks_at_its_own_archive(toy: Project, tmp_path: Path) -> None:
    manifest.remember(toy)
    copy = Project(tmp_path / "copy")
    shutil.copytree(toy.root, copy.root)
    assert reasons(copy) == {}
    (copy.root / "demo/mimic-cxr/files/p10/s1/b.dcm").unlink()
    assert reasons(copy)["inventory"] == ["folder source: 1 file gone"]
    assert reasons(toy) == {}


def test_a_first_run_that_was_cut_off_is_told_from_none(toy: Project) -> None:
    toy.dvc_lock.unlink()
    toy.run_file("tokens").unlink(missing_ok=True)
    toy.record("tokens").parent.mkdir(parents=True, exist_ok=True)
    toy.record("tokens").touch()
    found = {state.name: state.reasons for state in staleness.check(toy)}
    assert found.pop("tokens") == ["begun, not finished"]
    assert set(map(tuple, found.values())) == {("never run",)}
