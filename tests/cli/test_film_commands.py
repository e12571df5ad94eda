"""``lapvqa embed`` and ``caption``: what is not there is told, and costs no table of before."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cli_answer import Lapvqa
from PIL import Image

from lapvqa import storage
from lapvqa.evaluation import external_encoders
from lapvqa.networks.weights import serialise
from lapvqa.params import ModelParams
from lapvqa.pretrain.model import initial_model
from lapvqa.project import Project

sys.path.insert(0, str(Path(__file__).parents[1] / "dicom"))
from made_dicom import small_image, write_project

SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project without a model of its own; beside it an encoder alone and a film."""
    project = write_project(tmp_path / "project", tmp_path / "archive")
    (project.root / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(project.root)
    encoder = initial_model(SIZES, seed=0).vision_encoder
    storage.write_bytes(Path("other/encoder_final.pt"), serialise(encoder.state_dict()))
    storage.write_json(Path("other/card.json"), {"model": SIZES.model_dump(), "init_seed": 0})
    Image.fromarray(small_image(0).astype("uint8")).save("film.png")
    return project


def test_no_failure_costs_the_table_of_before(project: Project, lapvqa: Lapvqa) -> None:
    table = project.root / "features.parquet"
    Path("note.txt").write_text("no film")
    absent = lapvqa("embed", "film.png", "/absent/film.dcm", "--model", "other")
    assert absent.code == 2
    assert "/absent/film.dcm, found nothing" in absent.err
    assert not table.exists()
    assert lapvqa("embed", "note.txt", "--model", "other").code == 3
    assert table.exists()  # it says why, and stands in the place of nothing
    done = lapvqa("embed", "film.png", "--model", "other")
    assert done.code == 0, done.err
    good = table.read_bytes()
    for films in (["/absent/film.dcm"], ["film.png", "/absent/film.dcm"]):
        assert lapvqa("embed", *films, "--model", "other").code == 2
    unusable = lapvqa("embed", "note.txt", "--model", "other")
    assert unusable.code == 3
    assert "features.parquet stays as it was" in unusable.err
    assert "rejected 1" in unusable.err
    assert table.read_bytes() == good
    assert [path.name for path in project.root.glob(".features*")] == []


def test_captions_need_more_than_an_encoder(project: Project, lapvqa: Lapvqa) -> None:
    storage.write_json(Path("vit/config.json"), {"model_type": "vit"})
    storage.write_bytes(Path("vit/model.safetensors"), b"")
    for model in ("other", "vit", "other/encoder_final.pt"):
        refused = lapvqa("caption", "film.png", "--model", model)
        assert refused.code != 0
        assert f"at {model}: this is an encoder alone" in refused.err
        assert "a decoder (models/captioning)" in refused.err
        assert "run --stage" not in refused.err
    absent = lapvqa("caption", "film.png", "--model", "/absent/model")
    assert absent.code == 2
    assert "at /absent/model, found nothing" in absent.err


def test_a_model_in_the_making_is_told_as_that(project: Project, lapvqa: Lapvqa) -> None:
    own = project.model_dir("captioning")
    (own / "epochs").mkdir(parents=True)
    (own / "history.csv").touch()
    with storage.lock(project.work_dir("pretrain").with_suffix(".lock"), what="stage pretrain"):
        for command in ("embed film.png", "caption film.png", "ask film.png ?", "try --no-browser"):
            busy = lapvqa(*command.split())
            assert busy.code == 4
            assert "a run at work there (stage pretrain)" in busy.err
            assert "the encoder comes with stage export" in busy.err
        assert lapvqa("embed", "film.png", "--model", "other").code == 0
    for command in ("embed film.png", "caption film.png", "ask film.png ?", "try --no-browser"):
        left = lapvqa(*command.split())
        assert left.code == 2
        assert "expected encoder_final.pt in captioning/, found nothing" in left.err
        assert "run `lapvqa run --stage export` first" in left.err


def test_what_is_no_film_is_told_by_what_it_is_before_any_model_is_opened(
    project: Project, lapvqa: Lapvqa
) -> None:
    Path("cut.png").write_bytes(Path("film.png").read_bytes()[:200])
    Path("spoilt.png").write_bytes(bytes(8) + Path("film.png").read_bytes()[8:])
    Path("login.dcm").write_text("<!doctype html><html>log in, Kanarienvogel</html>")
    Path("nothing.jpg").touch()
    Image.open("film.png").save("film.tif")
    found = {
        "cut.png": "expected a whole PNG, found its end within a chunk",
        "spoilt.png": "found a PNG whose first 8 bytes, its signature, are damaged",
        "login.dcm": "expected a DICOM file (DICM at byte 128), found a web page",
        "nothing.jpg": "expected a PNG or JPEG, found an empty file",
        "film.tif": "found a TIFF: convert it to PNG",
    }
    told = " ".join(lapvqa("embed", *found, "--model", "other").err.split())
    for name, what in found.items():
        assert what in told, name
    assert "Kanarienvogel" not in told
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("no film")
    for command in (["embed"], ["caption", "--model", "/absent/model"], ["ask"]):
        question = ["what?"] if command == ["ask"] else []
        refused = lapvqa(command[0], "texts", *question, *command[1:])
        assert refused.code == 2
        assert "in texts, found none among 1 file (text 1)" in refused.err


def test_a_name_that_is_no_text_costs_no_film(project: Project, lapvqa: Lapvqa) -> None:
    names = {  # also of a model and of a table
        what: Path(os.fsdecode(name))
        for what, name in {
            "folder": b"M\xfcller", "film": b"M\xfcller/\xfffilm.png", "lone": b"R\xf6ntgen.png",
            "model": b"m\xfcdel", "out": b"x\xff.parquet",
        }.items()
    }  # fmt: skip
    names["folder"].mkdir()
    for name in ("film", "lone"):
        names[name].write_bytes(Path("film.png").read_bytes())
    model = initial_model(SIZES, seed=0)
    for file, module in (("encoder_final.pt", model.vision_encoder), ("model_best.pt", model)):
        storage.write_bytes(names["model"] / file, serialise(module.state_dict()))
    card = {"model": SIZES.model_dump(), "init_seed": 0, "objective": "captioning"}
    storage.write_json(names["model"] / "card.json", card)
    films = [str(names[name]) for name in ("folder", "lone")] + ["--model", str(names["model"])]
    done = lapvqa("embed", *films, "--out", str(names["out"]))
    assert done.code == 0, done.err
    shown = ["M\\xfcller/\\xfffilm.png", "R\\xf6ntgen.png"]
    assert pq.read_table(names["out"].open("rb"))["path"].to_pylist() == shown
    told = lapvqa("caption", *films, "--json").out.splitlines()
    assert [json.loads(line)["path"] for line in told] == shown
    assert lapvqa("caption", *films).out.startswith(f"{shown[0]}: ")
    external_encoders.claim("theirs", names["model"], project)
    assert external_encoders.read_encoders(project)["theirs"]["file"] == "m\\xfcdel"


def test_a_folder_that_cannot_be_read_is_named_to_who_typed_its_path(
    project: Project, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("films/Kanarienvogel").mkdir(parents=True)
    scandir = os.scandir

    def refuse(path: str) -> object:  # root may read whatever its mode
        if str(path).endswith("Kanarienvogel"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for command in ("embed films", "caption films", "ask films what?", "inspect films"):
        refused = lapvqa(*command.split())
        assert refused.code == 2
        assert "a folder cannot be read (Permission denied): " in refused.err
        assert "films/Kanarienvogel\n  what to do: grant access" in refused.err
        assert "archive" not in refused.err


def test_a_table_is_written_under_a_name_of_its_kind_alone(
    project: Project, lapvqa: Lapvqa
) -> None:
    refused = lapvqa("embed", "film.png", "--model", "other", "--out", "a.csv")
    assert refused.code == 2
    assert "expected a name that ends in .parquet, found a.csv" in refused.err
    assert not Path("a.csv").exists()
