"""A bundle is whole or refused, brings no patient's key unasked, and changes nothing twice."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import written_ledger
from written_ledger import PATIENTS

from lapvqa.errors import LapvqaError, MissingArtifactError
from lapvqa.lineage import bundle, ledger, signing
from lapvqa.lineage.card import check
from lapvqa.lineage.ledger import IMPORT, RELEASE
from lapvqa.lineage.signing import SignatureError
from lapvqa.project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return written_ledger.write(tmp_path_factory.mktemp("sender"))


@pytest.fixture(scope="module")
def packed(project: Project) -> bytes:
    out = project.root / "model.zip"
    bundle.pack(project, "models/captioning", out)
    return out.read_bytes()


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_same_ledger_gives_the_same_bytes(project: Project, packed: bytes) -> None:
    ledger.append(project, "look", {"what": "something else"})
    again = bundle.pack(project, "captioning", project.root / "again.zip")
    assert (project.root / "again.zip").read_bytes() == packed
    assert not again.new
    told = [e.payload for e in ledger.entries(project) if e.kind == RELEASE and e.payload]
    assert [one["bundle"] for one in told] == [again.digest]


def test_no_patients_key_is_in_it_unless_asked_for(project: Project, packed: bytes) -> None:
    assert not [key for key in PATIENTS if key.encode() in packed]
    assert b"trained-on" in packed  # the chain says that there was such an entry
    assert b'"roles"' not in packed  # and nothing of what it says
    out = project.root / "full.zip"
    bundle.pack(project, "captioning", out, predictions=True, weights=True)
    names = zipfile.ZipFile(out).namelist()
    assert "files/results/probe_nih14/predictions.parquet" in names
    assert "files/models/captioning/encoder.safetensors" in names
    assert "files/models/captioning/members.parquet" not in names


def test_importing_it_twice_changes_nothing(tmp_path: Path, packed: bytes) -> None:
    receiver, file = Project(tmp_path / "receiver"), tmp_path / "b.zip"
    file.write_bytes(packed)
    first = bundle.unpack(receiver, file)
    assert first.new
    before = files(receiver.root)
    assert not bundle.unpack(receiver, file).new
    assert files(receiver.root) == before
    (entry,) = ledger.entries(receiver)
    assert entry.kind == IMPORT
    assert entry.payload is not None
    assert entry.payload["bundle"] == first.digest
    folder = receiver.imported(first.digest)
    assert "# Model card" in (folder / "card.md").read_text()
    brought = ledger.entries(Project(folder))
    assert check.faults((folder / "card.md").read_text(), brought) == []
    told = [e for e in brought if e.payload]
    assert {e.payload["stage"] for e in told if e.payload and "stage" in e.payload} == {
        "ingest", "firewall", "pretrain", "export", "evaluate@probe_nih14",
    }  # fmt: skip
    assert ledger.verify(Project(folder), partly=True) == []


def test_every_changed_byte_is_refused_and_nothing_is_written(
    tmp_path: Path, packed: bytes
) -> None:
    receiver, file = Project(tmp_path / "receiver"), tmp_path / "b.zip"
    named = set()
    for place in [*range(0, len(packed), 211), len(packed) - 1]:
        changed = bytearray(packed)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        with pytest.raises(LapvqaError) as refused:
            bundle.unpack(receiver, file)
        assert refused.value.exit_code == 3
        named.add(re.split("[:,]", refused.value.message)[0])
    assert {"card.md", "ledger/payloads.jsonl", "manifest.json", "the zip itself"} <= named
    for changed in (packed[:-30], packed + b"x", b"", b"no zip"):
        file.write_bytes(changed)
        with pytest.raises(LapvqaError):
            bundle.unpack(receiver, file)
    assert not receiver.root.exists()


def rewritten(packed: bytes, out: Path, **changes: bytes | None) -> Path:
    """Write a bundle as somebody without the key would: other files in a whole zip."""
    (out.with_suffix(".before")).write_bytes(packed)
    with zipfile.ZipFile(out.with_suffix(".before")) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()} | {
            name.replace("__", "/").replace("_json", ".json"): data
            for name, data in changes.items()
        }
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in contents.items():
            if data is not None:
                archive.writestr(name, data)
    return out


def test_the_file_or_field_that_somebody_changed_is_named(tmp_path: Path, packed: bytes) -> None:
    receiver, out = Project(tmp_path / "receiver"), tmp_path / "b.zip"
    metrics = zipfile.ZipFile(rewritten(packed, out)).read("metrics.json")
    manifest = zipfile.ZipFile(out).read("manifest.json")
    better = metrics.replace(b"0.72", b"0.92", 1)
    for changes, why in (
        ({"metrics_json": better}, "metrics.json: bytes 0 to"),
        ({"metrics_json": metrics + b" "}, r"metrics.json: expected \d+ bytes, found"),
        ({"metrics_json": None}, "metrics.json: the manifest and the zip do not both hold it"),
        ({"extra_json": b"{}"}, "extra.json: the manifest and the zip do not both hold it"),
        ({"..__x_json": b"{}"}, "a name that leads out of the bundle"),
        ({"manifest_json": manifest.replace(b'"stage": "export"', b'"stage": "ingest"')},
         "manifest.json: a field beside files was changed"),
        ({"manifest_json": manifest.replace(b'"block": 4096', b'"block": 4097', 1)},
         "manifest.json: files.card.md was changed"),
    ):  # fmt: skip
        with pytest.raises(bundle.BundleError, match=why):
            bundle.unpack(receiver, rewritten(packed, out, **changes))
    assert not receiver.root.exists()


def test_a_known_key_is_held_against_the_bundles(
    tmp_path: Path, project: Project, packed: bytes
) -> None:
    receiver, file = Project(tmp_path / "receiver"), tmp_path / "b.zip"
    file.write_bytes(packed)
    stranger = signing.public_key(Project(tmp_path / "stranger"))
    with pytest.raises(SignatureError, match="keyid"):
        bundle.unpack(receiver, file, public_key=stranger)
    assert bundle.unpack(receiver, file, public_key=signing.public_key(project)).new


def test_a_models_provenance_is_signed(project: Project, packed: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(packed)
    envelope = zipfile.ZipFile(tmp_path / "b.zip").read("model.dsse.json")
    told = signing.verify(envelope, signing.public_key(project))
    weights = "models/captioning/encoder.safetensors"
    digest = signing.subjects(told)[weights]
    facts = [
        e.payload["files"][weights]
        for e in ledger.entries(project)
        if e.payload and weights in e.payload.get("files", {})
    ]
    assert digest == facts[-1]["sha256"]
    assert told["predicate"]["buildDefinition"]["externalParameters"]["pretrain"]["pretrain"]["lr"]


def test_what_another_run_wrote_over_is_taken_from_the_cache_or_missed(tmp_path: Path) -> None:
    project = written_ledger.write(tmp_path / "p")
    first = next(
        e for e in ledger.entries(project) if e.payload and e.payload.get("stage") == "export"
    )
    assert first.payload is not None
    with pytest.raises(MissingArtifactError, match="as run .* left it"):
        bundle.pack(project, first.id, tmp_path / "old.zip", weights=True)
    for path in ("models/captioning/encoder.safetensors", "models/captioning/model_best.pt"):
        content = (b"weights 0" * 3000) if "encoder" in path else b"best 0"
        runs = (e.payload for e in ledger.entries(project) if e.payload)
        md5 = next(one["outs"][path] for one in runs if path in one.get("outs", {}))
        cached = project.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(content)
    bundle.pack(project, first.id, tmp_path / "old.zip", weights=True)
    packed = zipfile.ZipFile(tmp_path / "old.zip")
    assert packed.read("files/models/captioning/encoder.safetensors") == b"weights 0" * 3000
