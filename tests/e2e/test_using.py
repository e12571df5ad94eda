"""A trained model used by hand writes and answers what its evaluations recorded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Scratch
from ruamel.yaml import YAML

from lapvqa import Encoder
from lapvqa.errors import CheckpointError, ConfigError
from lapvqa.inference.words import Answerer, Captioner
from lapvqa.machine import Machine
from lapvqa.params import load_params
from lapvqa.project import Project

MACHINE = Machine(workers=1, device="cpu")


@pytest.fixture(scope="module")
def films(finished: Scratch) -> dict[str, Path]:
    """Key of each stored image -> its file in the archive."""
    files = (finished.root / "demo" / "mimic-cxr").rglob("*.dcm")
    by_digest = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files}
    images = pq.read_table(finished.root / "data/images.parquet").to_pylist()
    return {image["image_key"]: by_digest[image["file_sha256"]] for image in images}


def predictions(finished: Scratch, task: str) -> list[dict[str, str]]:
    rows = pq.read_table(finished.root / f"results/{task}/predictions.parquet").to_pylist()
    return [row for row in rows if row["system"] == "trained"]


def test_a_caption_is_the_report_that_was_judged(finished: Scratch, films: dict[str, Path]) -> None:
    images = pq.read_table(finished.root / "data/images.parquet").to_pylist()
    frontal = {
        image["study_key"]: image["image_key"]
        for image in sorted(images, key=lambda image: image["image_key"], reverse=True)
        if image["view"] in ("PA", "AP", "FRONTAL")
    }
    rows = predictions(finished, "rrg")
    params = load_params(finished.root / "params.yaml").evaluate.rrg
    captioner = Captioner.load(
        finished.root / "models/captioning", machine=MACHINE, max_new_tokens=params.max_new_tokens
    )
    written = [text for _, text in captioner.stream(films[frontal[row["sample"]]] for row in rows)]
    assert written == [row["hypothesis"] for row in rows]
    assert len(written) > 3


def test_an_answer_is_the_one_that_was_judged(finished: Scratch, films: dict[str, Path]) -> None:
    encoder = Encoder.load(finished.root / "models/captioning", machine=MACHINE)
    answerer = Answerer.load(encoder, Project(finished.root).result_dir("vqa"))
    rows = predictions(finished, "vqa")[:12]
    for row in rows:
        ((film, answer),) = answerer.stream(films[row["image"]], row["question"])
        assert film.reason is None
        assert answer == row["hypothesis"]
    with pytest.raises(ConfigError, match="expected a question of 1 to 134 tokens, found 0"):
        list(answerer.stream([], " "))


def test_a_head_is_for_its_own_encoder_alone(finished: Scratch, tmp_path: Path) -> None:
    other = Encoder.load(finished.root / "models/captioning", machine=MACHINE)
    other.digest = "0" * 64
    with pytest.raises(CheckpointError, match="found 000000000000"):
        Answerer.load(other, Project(finished.root).result_dir("vqa"))


def test_the_command_leaves_a_row_per_film(
    finished: Scratch, films: dict[str, Path], tmp_path: Path
) -> None:
    first = sorted(films.values())[0]
    (tmp_path / "no_film.dcm").write_bytes(b"x" * 500)
    out = tmp_path / "features.parquet"
    done = finished.lapvqa("embed", str(first), str(tmp_path / "no_film.dcm"), "--out", str(out))
    table = pq.read_table(out)
    encoder = Encoder.load(finished.root / "models/captioning", machine=MACHINE)
    assert table.schema.metadata[b"encoder_sha256"].decode() == encoder.digest
    taken, rejected = table.to_pylist()
    assert (taken["path"], taken["reason"]) == (str(first), None)
    assert len(taken["feature"]) == encoder.width
    assert (rejected["feature"], rejected["reason"]) == (None, "not_dicom")
    assert "rejected 1: not_dicom" in done.stderr
    (tmp_path / "theirs.parquet").write_bytes(b"somebody's")
    refused = finished.lapvqa(
        "embed", str(first), "--out", str(tmp_path / "theirs.parquet"), check=False
    )
    assert refused.returncode == 2
    assert (tmp_path / "theirs.parquet").read_bytes() == b"somebody's"


def test_the_exported_folder_has_the_card_and_its_licence(
    finished: Scratch, tmp_path: Path
) -> None:
    folder = tmp_path / "hub"
    finished.lapvqa("export", str(folder))
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    front = YAML(typ="safe").load((folder / "README.md").read_text().split("---")[1])
    assert front["license"] == "apache-2.0"
    results = front["model-index"][0]["results"]
    assert {"probe_chexpert", "rrg", "ad"} <= {one["dataset"]["name"] for one in results}
    assert all(isinstance(one["metrics"][0]["value"], float) for one in results)
    finished.lapvqa("export", str(folder))
    assert first == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").touch()
    refused = finished.lapvqa("export", str(tmp_path / "theirs"), check=False)
    assert refused.returncode == 2
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["thesis.tex"]
