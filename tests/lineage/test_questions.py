"""Up, down, diff, why, verify and log over a ledger that tells of two pipeline runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from told_project import COMMITS, KEYS, RAW, SHARD, STAGES, TOKENS, Told

from flows.cli import main
from lapvqa import storage
from lapvqa.erasure.impact import trainings_since
from lapvqa.errors import EXIT_BAD_DATA, EXIT_USER, ConfigError
from lapvqa.identity import DEMO_KEY, Keyring, key_id
from lapvqa.lineage import (
    bundle,
    difference,
    impact,
    index,
    ledger,
    members,
    merkle,
    reasons,
    recording,
    signing,
    story,
    walk,
)  # fmt: skip
from lapvqa.lineage.ledger import ARRIVAL, DECISION, DRIFT, LOOK, RUN, WAIVER, Draft
from lapvqa.lineage.origins import Origins
from lapvqa.lineage.row_numbers import PATIENT, STUDY, RowNumbers, packed
from lapvqa.lineage.runs import FAILED, Run
from lapvqa.lineage.verification import verify
from lapvqa.project import Project
from lapvqa.schemas import MEMBERS, MEMBERS_FILE
from lapvqa.uptodate import manifest

FIRST, SECOND = RAW
WEIGHTS = "models/captioning/encoder.safetensors"
METRICS = "results/vqa/metrics.json"
OUTS = [out for _, outs in STAGES.values() for out in outs]


# up


def test_an_older_run_shows_its_own_pretraining_though_bytes_are_equal(told: Told) -> None:
    for number, rate in ((1, 1.0), (2, 0.5)):
        lineage = walk.trace(told.project, told.ids["export", number])
        trained = {
            node.origin.id: node.origin.run.params["pretrain"]["lr"]
            for node in lineage.nodes.values()
            if node.origin and node.origin.stage == "pretrain"
        }
        assert trained == {told.ids["pretrain", number]: rate}
    folders = {
        node.md5
        for number in (1, 2)
        for key, node in walk.trace(told.project, told.ids["export", number]).nodes.items()
        if key.path.endswith("epochs")
    }
    assert len(folders) == 1  # the bytes are the same: only the run tells them apart


def test_a_clone_that_has_the_ledger_alone_answers_commit_and_run(
    told: Told, tmp_path: Path
) -> None:
    clone = Project(tmp_path / "clone")
    clone.root.mkdir()
    for name in ("dvc.lock", "dvc.yaml", "params.yaml"):
        shutil.copy(told.project.root / name, clone.root)
    shutil.copytree(told.project.root / "ledger", clone.root / "ledger",
                    ignore=shutil.ignore_patterns("private"))  # fmt: skip
    lineage = walk.trace(clone, "vqa.exact_match")
    assert lineage.target.value == {"trained": {"value": 0.5, "low": 0.25, "high": 0.75}}
    assert "not on this disk" in lineage.target.remark
    origin = next(iter(lineage.nodes.values())).origin
    assert origin is not None
    assert origin.run.commit == COMMITS[1]
    assert origin.id == told.ids["evaluate@vqa", 2]


def test_a_maker_that_was_told_after_its_reader_is_found_by_its_bytes(told: Told) -> None:
    late = Told(told.project.root.parent / "late")
    late.project.root.mkdir()
    late.start()
    late.run_all(1, rate=1.0, patients=[FIRST])
    shutil.rmtree(late.project.ledger.parent)
    for place, stage in enumerate(("export", "pretrain", "tokens", "ingest", "inventory")):
        late.tell(stage, 1, started=2e9 + place, params={})
    lineage = walk.trace(late.project, WEIGHTS)
    found = {node.origin.stage for node in lineage.nodes.values() if node.origin}
    assert found == {"export", "pretrain", "tokens", "ingest", "inventory"}
    assert index.faults(late.project) == []


def test_a_value_without_an_interval_stands_alone(
    told: Told, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(told.project.root)
    assert main(["lineage", "vqa.exact_match"]) == 0
    assert "exact_match trained: 0.5 [0.25, 0.75]" in capsys.readouterr().out
    path = told.project.result_dir("vqa") / "metrics.json"
    content = json.loads(path.read_bytes())
    content["systems"]["trained"]["exact_match"] |= {"low": None, "high": None}
    path.write_text(json.dumps(content))
    assert main(["lineage", "vqa.exact_match"]) == 0
    assert "exact_match trained: 0.5\n" in capsys.readouterr().out


def test_code_and_environment_take_a_line_each(told: Told, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(told.project.root)
    assert main(["lineage", WEIGHTS]) == 0
    out = capsys.readouterr().out
    assert f"commit {COMMITS[1][:12]}" in out
    assert "environment Python 3.11.9, torch 2.13.0, on here, no GPU" in out
    assert "lapvqa/pretrain" not in out
    bare = out
    assert main(["lineage", "up", WEIGHTS]) == 0
    assert capsys.readouterr().out == bare


@st.composite
def histories(draw: st.DrawFn) -> list[list[int]]:
    """Draw, for each run, the earlier runs that it reads."""
    count = draw(st.integers(1, 8))
    return [draw(st.lists(st.integers(0, run - 1), unique=True)) if run else []
            for run in range(count)]  # fmt: skip


@given(histories())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_walks_are_the_closures_of_the_edges(
    tmp_path_factory: pytest.TempPathFactory, reads: list[list[int]]
) -> None:
    project = Project(tmp_path_factory.mktemp("history"))
    ids: list[str] = []
    for number, sources in enumerate(reads):
        # All leave the same bytes at the same path: only the run can tell them apart.
        run = Run(
            f"stage{number}", 1.0 + number, 1.0, outs={"out": "same", f"out{number}": "same"},
            deps={f"out{source}": "same" for source in sources},
            sources={f"out{source}": ids[source] for source in sources},
        )  # fmt: skip
        drafts = [Draft(RUN, run.payload())]
        ids += ledger.extend(project, lambda _, drafts=drafts: drafts)

    def above(number: int) -> set[int]:
        return {number}.union(*(above(source) for source in reads[number]))

    with index.opened(project) as database:
        origins = Origins(database)
        for number, run_id in enumerate(ids):
            origin = origins.by_id(run_id)
            assert origin is not None
            assert set(origins.upstream(origin)) == {ids[one] for one in above(number)}
            below = {ids[one] for one in range(len(reads)) if number in above(one) - {one}}
            assert {run.id for run in origins.downstream([origin.number])} == below


# down


@pytest.mark.parametrize("asked", [FIRST, KEYS.patient(FIRST)])
def test_a_patient_is_followed_to_rows_trainings_and_metrics(told: Told, asked: str) -> None:
    without = Run("evaluate@rrg", 2e9, 1.0, counts={"reason": "no data here"})
    ledger.append(told.project, RUN, without.payload())
    found = impact.follow(told.project, asked, person=True)
    assert {(film["shard"], film["row"]) for film in found.films} == {(SHARD, 0), (SHARD, 1)}
    assert [(place.path, place.rows) for place in found.tokens] == [
        (f"data/tokens/{TOKENS}", (0, 1))
    ]
    assert [(one.origin.id, one.role, one.studies, one.times) for one in found.sampled] == [
        (told.ids["pretrain", 1], "train", 2, 8), (told.ids["pretrain", 2], "train", 2, 8),
    ]  # fmt: skip
    assert {run.id for run in found.runs} == {
        told.ids[stage, number] for stage in ("pretrain", "export", "evaluate@vqa")
        for number in (1, 2)
    }  # fmt: skip
    assert [(one.path, one.rows) for one in found.predicted] == [
        ("results/vqa/predictions.parquet", 2)
    ]
    assert [one.id for one in found.heads] == [told.ids["evaluate@vqa", 2]]
    assert FIRST not in json.dumps(found.to_json())


def test_roles_come_from_the_bitmaps_not_from_the_folder_that_was_read(told: Told) -> None:
    found = impact.follow(told.project, SECOND, person=True)
    roles = [(one.origin.id, one.role, one.times) for one in found.sampled]
    assert roles == [
        (told.ids["pretrain", 1], "validate", 0), (told.ids["pretrain", 2], "train", 4),
    ]  # fmt: skip


def test_runs_that_judged_the_same_samples_before_are_told_too(told: Told) -> None:
    judged = [told.ids["evaluate@vqa", 1], told.ids["evaluate@vqa", 2]]
    with index.opened(told.project) as database, database:
        database.execute("DELETE FROM trained_on")  # as of somebody in the test split
    found = impact.follow(told.project, SECOND, person=True)
    assert [run.id for run in found.starts if run.stage == "evaluate@vqa"] == judged[::-1]


def test_sampled_times_are_those_of_the_members_file(told: Told) -> None:
    rows = pq.read_table(told.project.root / "models/captioning/members.parquet").to_pylist()
    for row in rows:
        found = impact.follow(told.project, row["study_key"])
        last = found.sampled[-1]
        assert (last.role, last.times) == (row["role"], row["times"])


def test_registered_versions_and_bundles_are_told(told: Told) -> None:
    with index.opened(told.project) as database:
        (sha256,) = database.execute(
            "SELECT sha256 FROM artefacts JOIN runs USING (run) WHERE id = ?",
            (told.ids["export", 1],),
        ).fetchone()
    said = {"name": "lapvqa-encoder", "version": "1", "aliases": [], "sha256": sha256}
    ledger.append(told.project, ledger.MODEL, said)
    for name, run in (("carried.zip", told.ids["export", 2]), ("other.zip", "f" * 64)):
        ledger.append(told.project, ledger.RELEASE, {"bundle": "b" * 64, "run": run, "name": name})
    found = impact.follow(told.project, FIRST, person=True)
    assert [version.version for version in found.models] == ["1"]
    model = impact.follow(told.project, "models:/lapvqa-encoder/1")
    assert [run.id for run in model.runs] == [told.ids["evaluate@vqa", 1]]
    assert [release["name"] for release in found.releases] == ["carried.zip"]
    older = impact.follow(told.project, told.ids["pretrain", 1])
    assert older.releases == ()


def test_a_code_file_leads_to_the_runs_that_ran_it(told: Told) -> None:
    found = impact.follow(told.project, "lapvqa/pretrain")
    assert {run.id for run in found.starts} == {told.ids["pretrain", 1], told.ids["pretrain", 2]}


def test_without_the_row_numbers_it_says_what_cannot_be_told(told: Told) -> None:
    shutil.rmtree(told.project.row_numbers)
    found = impact.follow(told.project, FIRST, person=True)
    assert "ledger/private" in found.target.remark
    assert len(found.films) == 2
    assert found.sampled == ()


@pytest.mark.parametrize("lost", ["cut", "empty", "gone", "another's"])
def test_where_the_row_numbers_were_lost_nothing_is_said_or_written(told: Told, lost: str) -> None:
    """Else a model would not be named that saw the patient, or named that never did."""
    project = told.project
    keys = project.row_numbers / "patient.txt"
    content = keys.read_bytes()
    if lost == "gone":
        keys.unlink()
    else:
        others = bytes([content[0] ^ 1]) + content[1:]
        keys.write_bytes({"cut": content[:17], "empty": b"", "another's": others}[lost])
    damaged = keys.read_bytes() if keys.exists() else None
    for question in (FIRST, SECOND):
        with pytest.raises(ConfigError, match=r"private/patient.txt") as error:
            impact.follow(project, question, person=True)
        assert "restore ledger/private" in error.value.hint
        assert question not in str(error.value)
    entries = len(ledger.entries(project))
    with pytest.raises(ConfigError, match=r"private/patient.txt"):
        train(told, [KEYS.patient(FIRST), KEYS.patient("30000003")], started=1.9e9)
    assert len(ledger.entries(project)) == entries, "the next run makes up for all of it"
    assert (keys.read_bytes() if keys.exists() else None) == damaged
    keys.write_bytes(content)
    assert [one.times for one in impact.follow(project, FIRST, person=True).sampled] == [8, 8]
    train(told, [KEYS.patient(FIRST), KEYS.patient("30000003")], started=1.9e9)


def test_a_run_that_would_train_says_so_before_its_work(
    told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(told.project.root)
    (told.project.row_numbers / "patient.txt").write_bytes(b"")
    told.write("lapvqa/pretrain/code.py", "other")
    assert main(["run"]) == EXIT_USER
    assert "restore ledger/private" in " ".join(capsys.readouterr().err.split())
    assert not told.project.unsettled.exists()


def test_a_clone_does_not_begin_the_row_numbers_anew(told: Told) -> None:
    shutil.rmtree(told.project.row_numbers)
    with pytest.raises(ConfigError, match="the ledger has row"):
        RowNumbers(told.project, PATIENT).number(["f" * 16])
    assert not told.project.row_numbers.exists()


def test_rows_of_looks_and_arrivals_count_too(tmp_path: Path) -> None:
    project = Project(tmp_path)
    for kind, entry, said in (
        (PATIENT, ledger.LOOK, lambda rows: {"patients": rows}),
        (STUDY, ledger.ARRIVAL, lambda rows: {"study": rows, "replaces": []}),
    ):
        numbers = RowNumbers(project, kind)
        ledger.append(project, entry, said(packed(numbers.number(["a" * 16, "b" * 16]))))
        (project.row_numbers / f"{kind}.txt").write_text("a" * 16 + "\n")
        for use in (numbers.number, numbers.find_all):
            with pytest.raises(ConfigError, match=f"private/{kind}.txt: the ledger has row 1"):
                use(["c" * 16])


# diff


def test_two_models_differ_by_whom_they_sampled_and_by_what_was_set(told: Told) -> None:
    found = difference.compare(told.project, told.ids["export", 1], WEIGHTS)
    members = {(one.role, one.kind): one for one in found.members}
    assert members["train", PATIENT].added == (KEYS.patient(SECOND),)
    assert members["train", PATIENT].removed == ()
    assert members["train", STUDY].added == (KEYS.study(RAW[SECOND][0]),)
    assert members["validate", PATIENT].removed == (KEYS.patient(SECOND),)
    assert [str(change) for change in found.changes["pretrain"]] == ["pretrain.lr 1.0 -> 0.5"]
    assert KEYS.patient(SECOND) not in json.dumps(found.to_json())
    assert KEYS.patient(SECOND) in json.dumps(found.to_json(keys=True))


def test_metrics_of_two_models_have_a_paired_difference(told: Told) -> None:
    first = told.project.root / "results/vqa/predictions.parquet"
    cache = told.project.root / ".dvc" / "cache" / "files" / "md5"
    assert "no longer here" in _pair(told).note  # of the first run nothing is on disk
    other = Told(told.project.root.parent / "first")
    other.project.root.mkdir()
    other.start()
    other.run_all(1, rate=1.0, patients=[FIRST])
    for name in ("predictions.parquet", "metrics.json"):
        file = other.project.root / "results/vqa" / name
        md5 = other.lock["evaluate@vqa"]["outs"][0 if name.startswith("p") else 1]["md5"]
        (cache / md5[:2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, cache / md5[:2] / md5[2:])
    pair = _pair(told)
    assert pair.difference is not None
    hits = [
        [row["hypothesis"] == row["reference"] for row in pq.read_table(file).to_pylist()]
        for file in (other.project.root / "results/vqa/predictions.parquet", first)
    ]
    assert pair.difference["value"] == pytest.approx((sum(hits[1]) - sum(hits[0])) / 3, abs=1e-6)


def _pair(told: Told) -> difference.MetricPair:
    found = difference.compare(told.project, told.ids["export", 1], told.ids["export", 2])
    (pair,) = [one for one in found.metrics if one.name == "trained.exact_match"]
    return pair


# why


def test_why_it_last_ran_and_why_it_would(told: Told) -> None:
    answer = reasons.why(told.project, "pretrain")
    assert answer.last is not None
    assert answer.last.id == told.ids["pretrain", 2]
    assert [str(change) for change in answer.changes] == ["pretrain.lr 1.0 -> 0.5"]
    answer = reasons.why(told.project, "export")
    assert answer.upstream == {"models/captioning/model_best.pt": "pretrain"}
    told.write("lapvqa/text/code.py", "other")
    assert any("lapvqa/text" in reason for reason in reasons.why(told.project, "tokens").stale)


# verify


@pytest.mark.parametrize("path", OUTS)
def test_one_flipped_byte_is_named(told: Told, path: str) -> None:
    manifest.remember(told.project)  # without DVC's cache it knows the files of a folder
    assert verify(told.project).faults == ()
    file = told.project.root / path
    file = next(one for one in sorted(file.rglob("*")) if one.is_file()) if file.is_dir() else file
    stat, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a disk that rots leaves it
    faults = verify(told.project).faults
    assert faults
    assert faults[0].startswith(f"{file.relative_to(told.project.root)}: ")


def test_one_flipped_byte_of_what_was_signed_or_imported_is_named(told: Told) -> None:
    project = told.project
    root = project.root
    verdict = signing.statement({"encoder.safetensors": "a" * 64}, signing.VERDICT, {"says": "yes"})
    storage.write_bytes(project.verdicts / "today.dsse.json", signing.sign(project, verdict))
    pair = [project.receipts / "0123.json", project.receipts / "0123.html"]
    for file in pair:
        storage.write_bytes(file, b"what was erased, and how")
    named = {file.name: storage.sha256_file(file) for file in pair}
    receipt = signing.statement(named, signing.RECEIPT, {"patient": "0123"})
    storage.write_bytes(pair[0].with_suffix(".dsse.json"), signing.sign(project, receipt))
    bundle.pack(project, "captioning", root / "bundles/one.zip")
    bundle.unpack(project, root / "bundles/one.zip")
    assert verify(project).faults == ()
    folders = (project.verdicts, project.receipts, root / "imports")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for file in files:
        content = file.read_bytes()
        changed = bytearray(content)
        changed[len(content) // 2] ^= 1
        file.write_bytes(changed)
        faults = verify(project).faults
        # With another key it is the signature that does not hold; or the key is none any more.
        signature = [file.with_name("manifest.dsse.json")] if file.suffix == ".pem" else []
        names = [str(one.relative_to(root)) for one in (file, *signature)]
        assert [one for one in faults if any(name in one for name in names)], (file, faults)
        file.write_bytes(content)


def test_keys_that_are_not_those_of_the_trainings_are_named_and_no_erasure_trusts_them(
    told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(told.project.root)
    keys = told.project.row_numbers / "patient.txt"
    content = keys.read_bytes()
    changed = bytes([content[0] ^ 1]) + content[1:]
    for damaged in (changed, content[:17], b""):
        keys.write_bytes(damaged)
        assert any("ledger/private/patient.txt" in one for one in verify(told.project).faults)
        assert main(["erase", "--patient", FIRST]) != 0
        assert "restore ledger/private" in " ".join(capsys.readouterr().err.split())
    keys.write_bytes(content)
    RowNumbers(told.project, PATIENT).erase(KEYS.patient(FIRST))
    assert verify(told.project).faults == (), "an erasure is no fault"
    shutil.rmtree(told.project.row_numbers)
    assert verify(told.project).faults == (), "a clone has none"


def test_what_to_do_fits_what_is_wrong(told: Told) -> None:
    project, root = told.project, told.project.root
    manifest.remember(project)
    storage.write_json(project.state / "wanted.json", {"causes": []})  # a retraining, for any cause
    assert verify(project).remedy == ""
    keys = project.row_numbers / "patient.txt"
    weights, epoch = root / WEIGHTS, root / "models/captioning/epochs/none"
    for path, content, remedy in (
        (keys, b"", "restore ledger/private"),
        (weights, b"other", "`dvc checkout`"),
        (epoch, None, "`dvc checkout`"),
        (project.ledger_payloads, b"", "restore ledger/ from git"),
    ):
        before = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        assert remedy in verify(project).remedy, path
        path.write_bytes(before)
    with index.opened(project) as database, database:
        database.execute("DELETE FROM metrics")
    assert "delete .lapvqa/lineage.sqlite" in verify(project).remedy
    index.rebuild(project)
    ledger.append(project, DECISION, {"erasure": "0123", "request": "letter", "runs": []})
    epoch.unlink()
    assert "an erasure took outputs away" in verify(project).remedy
    weights.write_bytes(b"other")
    assert "`dvc checkout`" in verify(project).remedy, "an erasure changes no byte"


@pytest.mark.parametrize("key_is_named", [True, False])
def test_each_training_is_held_against_the_key_of_its_own_archive(
    told: Told, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    key_is_named: bool,
) -> None:  # fmt: skip
    """The demo, an archive with a key of its own, and the demo again."""
    project, secret = told.project, b"0123456789abcdef" * 4
    own = Keyring(secret)
    if not key_is_named:  # as older versions wrote it
        monkeypatch.setattr(recording, "_root_of", without_the_key(recording._root_of))
    (project.root / "archive").mkdir()
    told.write(".lapvqa/deid.key", secret.decode())
    told.write("local.yaml", "paths:\n  source: archive\n")
    train(told, [own.patient(one) for one in (FIRST, SECOND, "30000003")], started=1.9e9)
    absent = merkle.member_digest(secret, own.patient(FIRST)).hex()
    receipt = {
        "written": "2000-01-01T00:00:00Z",
        "training_set": {"absent": absent, "key": key_id(secret)},
    }
    monkeypatch.chdir(project.root)
    for chosen in ("archive", "demo/mimic-cxr"):
        told.write("local.yaml", f"paths:\n  source: {chosen}\n")
        assert [(one.key, one.is_as_recorded) for one in members.trainings(project)] == [
            (key_id(DEMO_KEY), True), (key_id(DEMO_KEY), True), (key_id(secret), True),
        ]  # fmt: skip
        assert verify(project).faults == ()
        assert [one["has_the_patient"] for one in trainings_since(project, receipt)] == [
            None, None, True,
        ]  # fmt: skip
        main(["erase", "--patient", "99999999"])
        assert "restore ledger/private" not in " ".join(capsys.readouterr().err.split())

    before = (project.row_numbers / "patient.txt").read_bytes()
    changed = before.replace(own.patient(SECOND).encode(), b"f" * 16)
    (project.row_numbers / "patient.txt").write_bytes(changed)
    named = [one for one in verify(project).faults if "ledger/private/patient.txt" in one]
    assert len(named) == key_is_named, "without its name a lost key may have made it"
    (project.row_numbers / "patient.txt").write_bytes(before)

    RowNumbers(project, PATIENT).erase(own.patient(FIRST))
    train(told, [own.patient(SECOND), KEYS.patient(FIRST)], started=2.0e9)
    assert verify(project).faults == (), "an erasure in between is no fault"
    assert [one.is_as_recorded for one in members.trainings(project)] == [True, True, False, True]
    (project.state / "deid.key").unlink()
    assert verify(project).faults == (), "whose keys they are cannot be told without the key"


def without_the_key(root_of: Any) -> Any:
    def older(*asked: Any) -> dict[str, Any]:
        told = root_of(*asked)["members"]
        return {"members": {name: told[name] for name in ("patients", "root")}}

    return older


def train(told: Told, patients: list[str], *, started: float) -> None:
    """Tell a training by the keys of its patients, a study each."""
    rows = [
        {"study_key": KEYS.study(one), "patient_key": one, "role": "train", "times": 2,
         "times_best": 1, "first_step": 1}
        for one in patients
    ]  # fmt: skip
    path = told.project.model_dir("captioning") / MEMBERS_FILE
    storage.write_table(path, pa.Table.from_pylist(rows, MEMBERS), MEMBERS)
    told.tell("pretrain", 2, started=started, params={})


def test_an_object_of_the_cache_that_is_spoilt_too_is_named(
    told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(told.project.root)
    file = told.project.root / WEIGHTS
    digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    place = Path(".dvc/cache/files/md5", digest[:2], digest[2:])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.hardlink_to(file)
    assert verify(told.project).spoilt == ()
    with file.open("r+b") as handle:
        handle.write(b"over")
    assert main(["lineage", "verify"]) == EXIT_BAD_DATA
    said = " ".join(capsys.readouterr().err.split())
    assert "`lapvqa run` makes it again" in said
    assert f"delete {place};" in said
    place.unlink()
    place.write_bytes(b"whole, of another run")
    assert verify(told.project).spoilt == (str(place),)
    place.unlink()
    assert verify(told.project).spoilt == ()


def test_the_first_thing_that_does_not_match_ends_it_with_rc_3(
    told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(told.project.root)
    assert main(["lineage", "verify"]) == 0
    with index.opened(told.project) as database, database:
        database.execute("UPDATE metrics SET value = 0.9 WHERE name = 'trained.exact_match'")
    assert main(["lineage", "verify"]) == EXIT_BAD_DATA
    assert "lineage.sqlite: table metrics" in capsys.readouterr().err
    lines = told.project.ledger_payloads.read_bytes()
    told.project.ledger_payloads.write_bytes(lines.replace(b'"lr": 0.5', b'"lr": 0.6'))
    assert main(["lineage", "verify", "--json"]) == EXIT_BAD_DATA
    printed = capsys.readouterr()
    assert "what it says was changed" in json.loads(printed.out)["faults"][0]
    assert "ledger/chain.jsonl line" in printed.err


# log


def test_what_happened_newest_first(told: Told) -> None:
    failed = Run("ingest", 5e9, 3.0, FAILED)
    ledger.append(told.project, RUN, failed.payload())
    events = story.tell(told.project)
    sentences = [event.sentence for event in events]
    assert sentences == [
        "A run ended early: ingest failed.",
        "A run brought pretrain, export and evaluate@vqa up to date in 2 min 30 s.",
        "A run brought inventory, ingest, tokens, pretrain, export and evaluate@vqa up to date in "
        "5 min 30 s.",
    ]
    assert "changed: pretrain.lr 1.0 -> 0.5" in events[1].details
    assert story.tell(told.project, limit=1) == events[:1]


def test_what_happened_in_one_millisecond_keeps_the_order_of_writing(told: Told) -> None:
    kinds = [WAIVER, DRIFT, DECISION, LOOK, DRIFT, RUN, DECISION, RUN, WAIVER, ARRIVAL] * 2
    stages = iter(("ingest", "tokens", "pretrain", "export"))
    drafts = [
        Draft(kind, Run(next(stages), 5e9, 0.0).payload() if kind == RUN else {"what": kind}, 5e9)
        for kind in kinds
    ]
    ids = ledger.extend(told.project, lambda _: drafts)
    events = story.tell(told.project, limit=len(ids))
    assert [event.entries for event in events] == [(id,) for id in reversed(ids)]


@pytest.mark.parametrize(
    "question",
    [
        ["up", "vqa.exact_match"], ["down", WEIGHTS], ["diff", "pretrain", "export"],
        ["why", "export"], ["verify"], ["log"], ["patient", FIRST],
    ],
)  # fmt: skip
def test_each_question_has_json_and_a_page(
    told: Told, question: list[str], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(told.project.root)
    for _ in ("first", "again"):
        capsys.readouterr()
        assert main(["lineage", *question, "--json", "--html", "page.html"]) == 0
        json.loads(capsys.readouterr().out)
    page = Path("page.html").read_text()
    assert "<svg" in page
    assert FIRST not in page
    for outside in ("http://", "https://", "src=", "@import", "url("):
        assert outside not in page
