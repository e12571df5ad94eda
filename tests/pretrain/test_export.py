"""The stage export: every form computes what the model computes, for any batch, or is not there."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from conftest import write_project
from exporting import SIZES, pretrain_and_export, run_export
from torch import Tensor

from lapvqa import storage
from lapvqa.errors import CheckpointError, ConfigError, MissingPackageError
from lapvqa.export import export, standalone
from lapvqa.export.standalone import Compute
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.networks.weights import load_weights
from lapvqa.params import ExportParams
from lapvqa.pretrain import files
from lapvqa.pretrain.model import initial_model
from lapvqa.project import Project

HOLDS = {
    "captioning": {"vision_encoder", "decoder"},
    "contrastive": {
        "vision_encoder", "text_encoder", "image_proj", "text_proj", "logit_scale", "logit_bias",
    },
    "coca": {
        "vision_encoder", "decoder", "cls_token", "text_norm", "image_proj", "text_proj",
        "logit_scale",
    },
}  # fmt: skip
"""Objective -> what the card says that its files hold; ``sigmoid`` differs in nothing."""
CLASSES = {"captioning": "CaptioningModel", "contrastive": "ContrastiveModel", "coca": "CocaModel"}
ASKED = ExportParams(onnx=True)
NOISE = torch.Generator().manual_seed(4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Callable[[str], Path]:
    """Return the model's folder of an objective, trained and exported once for all tests here."""

    @cache
    def of(objective: str) -> Path:
        project = write_project(tmp_path_factory.mktemp(objective))
        return pretrain_and_export(project, repository, objective, ASKED)

    return of


@pytest.fixture(scope="module", params=HOLDS)
def folder(request: pytest.FixtureRequest, exported: Callable[[str], Path]) -> Path:
    return exported(request.param)


@pytest.fixture(scope="module")
def captioning(exported: Callable[[str], Path]) -> Path:
    return exported("captioning")


@pytest.fixture
def copy(captioning: Path, tmp_path: Path) -> Project:
    """A project with a captioning model, to write in."""
    shutil.copytree(captioning.parents[1], tmp_path, dirs_exist_ok=True)
    return Project(tmp_path)


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[bytes, Compute, float]]:
    """Suffix of the file -> content, what it computes, tolerance."""
    formats = export.export_formats(
        initial_model(SIZES, seed=3).vision_encoder.eval(), SIZES, ASKED
    )
    return {name.rsplit(".")[-1]: (content, *rest) for name, content, *rest in formats}


@pytest.fixture
def encoder() -> VisionEncoder:
    return initial_model(SIZES, seed=3).vision_encoder.eval()


def digests(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): storage.sha256_file(path) for path in paths}


@pytest.mark.parametrize("count", [1, 2, 5])
@torch.no_grad()
def test_graphs_compute_any_batch_without_this_code(folder: Path, count: int) -> None:
    images = torch.randn(count, 1, 32, 32, generator=NOISE)
    model = files.load_model(folder)
    load_weights(model, folder / "model_last.pt")  # exported is what training ended with
    expected = model.vision_encoder(images)
    assert expected.shape == (count, 4, 32)
    program = torch.export.load(folder / "exports" / "encoder.pt2").module()
    torch.testing.assert_close(program(images), expected, rtol=0, atol=1e-6)
    session = onnxruntime.InferenceSession(folder / "exports" / "encoder.onnx")
    (tokens,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(tokens), expected, rtol=0, atol=1e-5)


def test_the_card_names_every_file_of_weights(folder: Path) -> None:
    card = files.read_card(folder)
    objective = folder.name
    assert card["objective"] == objective
    made = {
        "model_best.pt", "model_last.pt", "epochs/model_epoch001.pt", "epochs/model_epoch002.pt",
        "encoder_final.pt", "encoder.safetensors",
    }  # fmt: skip
    assert set(card["sha256"]) == set(card["files"]) == made
    graphs = storage.read_json(folder / "exports" / "files.json", made_by="export")
    assert set(graphs) == {"encoder.pt2", "encoder.onnx"}
    told = {"card.json", "training.json", "history.csv", "members.parquet", "exports/files.json"}
    assert set(digests(folder)) - made - {f"exports/{name}" for name in graphs} == told
    for name, facts in graphs.items():
        assert storage.sha256_file(folder / "exports" / name) == facts["sha256"]
    for name, digest in card["sha256"].items():
        assert storage.sha256_file(folder / name) == digest
    best = card["files"]["model_best.pt"]
    assert best["class"] == f"lapvqa.pretrain.model.{CLASSES[objective]}"
    assert set(best["holds"]) == HOLDS[objective]
    assert card["output"].get("embedding") == (None if objective == "captioning" else 16)
    assert graphs["encoder.onnx"]["opset"] == 18
    assert graphs["encoder.pt2"]["input"] == ["B", 1, 32, 32]
    assert graphs["encoder.pt2"]["output"] == ["B", 4, 32]


def test_onnx_says_what_it_takes_and_gives(folder: Path) -> None:
    model = onnx.load(folder / "exports" / "encoder.onnx")
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    shapes = {
        value.name: [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"images": ["batch", 1, 32, 32], "tokens": ["batch", 4, 32]}


def test_epochs_and_best_load_by_the_class_of_the_card(folder: Path) -> None:
    model = files.load_model(folder)
    assert type(model).__name__ == files.read_card(folder)["files"]["model_best.pt"]["class"][22:]
    load_weights(model, folder / "epochs" / "model_epoch001.pt")


def test_another_process_exports_the_same_bytes(captioning: Path, repository: Path) -> None:
    before = digests(captioning)
    script = (
        "import sys; from pathlib import Path; sys.path[:0] = [sys.argv[1], sys.argv[1] + '/..']\n"
        "from exporting import run_export; from lapvqa.project import Project\n"
        "from lapvqa.params import ExportParams\n"
        "run_export(Project(Path(sys.argv[2])), ExportParams(onnx=True))"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(captioning.parents[1])],
        check=True,
        env={
            "PYTHONHASHSEED": "7",
            "OMP_NUM_THREADS": "1",
            "PATH": "",
            "PYTHONPATH": str(repository),
        },  # fmt: skip
        cwd="/",
    )
    assert digests(captioning) == before


def test_no_path_of_this_machine_travels(folder: Path) -> None:
    here = str(Path(export.__file__).parent).encode()
    for name in ("encoder.pt2", "encoder.onnx"):
        content = (folder / "exports" / name).read_bytes()
        assert here not in content
        assert b".py" not in content


def test_what_is_no_longer_asked_for_is_removed(copy: Project) -> None:
    folder = copy.model_dir("captioning")
    assert (folder / "exports" / "encoder.onnx").exists()
    before = (folder / "card.json").read_bytes()
    run_export(copy, ExportParams())
    assert {path.name for path in (folder / "exports").iterdir()} == {"encoder.pt2", "files.json"}
    # The evaluations stand on the card: one format less changes none of them.
    assert (folder / "card.json").read_bytes() == before


def test_without_its_packages_onnx_is_refused_before_any_work(
    captioning: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(captioning)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else real(name)
    )
    project = Project(captioning.parents[1])
    with pytest.raises(MissingPackageError, match="onnxscript: not installed") as error:
        run_export(project, ASKED)
    assert "make setup-export" in error.value.hint
    assert digests(captioning) == before


def test_an_encoder_too_large_for_onnx_is_refused() -> None:
    with torch.device("meta"):
        published, huge = VisionEncoder(), VisionEncoder(depth=48)
    standalone.require_onnx(published)
    with pytest.raises(ConfigError, match=r"the encoder has 2\.3 GiB"):
        standalone.require_onnx(huge)


@pytest.mark.parametrize("form", ["pt", "safetensors", "pt2", "onnx"])
def test_a_form_that_computes_something_else_is_refused(
    encoder: VisionEncoder, made: dict[str, tuple[bytes, Compute, float]], form: str
) -> None:
    """The check is red for every form once one weight of the model differs from the file's."""
    _, compute, tolerance = made[form]
    export.check_parity("same", compute, export.reference_tokens(encoder), tolerance)
    encoder.blocks[1].mlp.fc2.bias.data[3] += 1e-3
    with pytest.raises(CheckpointError, match=r"other: outputs differ by .* expected at most"):
        export.check_parity("other", compute, export.reference_tokens(encoder), tolerance)


@pytest.mark.parametrize(
    ("form", "load"),
    [("pt2", standalone.load_pt2), ("onnx", standalone.load_onnx)],
)
def test_a_damaged_graph_does_not_load(
    made: dict[str, tuple[bytes, Compute, float]], form: str, load: Any
) -> None:
    content, _, _ = made[form]
    with pytest.raises(Exception, match=r"zip|[Pp]ars"):
        load(content[: len(content) // 2])


def test_what_is_wrong_for_a_batch_of_one_only_is_refused(encoder: VisionEncoder) -> None:
    def compute(images: Tensor) -> Tensor:
        tokens: Tensor = encoder(images)
        return tokens + 1 if len(images) == 1 else tokens

    with pytest.raises(CheckpointError, match="outputs differ"):
        export.check_parity("x", compute, export.reference_tokens(encoder), 1e-6)


def test_numbers_that_are_none_are_refused(encoder: VisionEncoder) -> None:
    with pytest.raises(CheckpointError, match="outputs differ by nan"):
        export.check_parity(
            "x", lambda images: encoder(images) * torch.nan, export.reference_tokens(encoder), 1e-6
        )


def test_nothing_is_written_in_place_of_a_form_that_differs(
    copy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(copy.model_dir("captioning"))
    real = standalone.trace

    def of_another_model(encoder: VisionEncoder) -> torch.export.ExportedProgram:
        encoder.norm.bias.data[0] += 1e-2
        return real(encoder)

    monkeypatch.setattr(standalone, "trace", of_another_model)
    with pytest.raises(CheckpointError, match=r"exports/encoder\.pt2: outputs differ"):
        run_export(copy, ASKED)
    assert digests(copy.model_dir("captioning")) == before
