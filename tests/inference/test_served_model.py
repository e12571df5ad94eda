"""The registered encoder in MLflow's hands: loaded, and served over HTTP by MLflow's own server."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import migrated_stores
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
from others_at_work import free_port

from lapvqa import Encoder, storage
from lapvqa.machine import Machine
from lapvqa.params import ModelParams
from lapvqa.pretrain.model import initial_model
from lapvqa.project import Project
from tasks.mlflow_records import registry
from tasks.mlflow_records.connection import connect

SIZES = ModelParams(
    image_size=32, patch_size=16, width=8, depth=1, heads=1, pooled_grid=2,
    decoder_width=8, decoder_depth=1, decoder_heads=1,
)  # fmt: skip
FILM = files("lapvqa.dicom").joinpath("samples", "explicit_little.dcm").read_bytes()
GREYS = (np.arange(80 * 90).reshape(80, 90) % 251).astype(np.uint8)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("served").resolve())
    migrated_stores.give(tmp_path_factory, project)
    folder = project.model_dir("captioning")
    weights = initial_model(SIZES, seed=3).vision_encoder.state_dict()
    storage.write_bytes(folder / registry.WEIGHTS, safetensors.torch.save(weights))
    storage.write_json(folder / registry.CARD, {"model": SIZES.model_dump(), "init_seed": 0})
    store = connect(project, Machine())
    registry.register_folder(store, project, folder)
    return project


@pytest.fixture(scope="module")
def model(project: Project) -> str:
    """The address of the model's files."""
    store = connect(project, Machine())
    version = registry.named(store, project, "models:/lapvqa-encoder@candidate").version
    return str(store.client.get_model_version(registry.MODEL, version).source)


@pytest.fixture(scope="module")
def encoder(project: Project) -> Encoder:
    weights = project.model_dir("captioning") / registry.WEIGHTS
    return Encoder.load(weights, machine=Machine(workers=1, device="cpu"))


@pytest.fixture(scope="module")
def post(model: str) -> Iterator[Callable[[Any], tuple[int, Any]]]:
    """Ask MLflow's server; return its status and answer."""
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    environment = {
        **os.environ, "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # uvicorn's
    }  # fmt: skip
    server = subprocess.Popen(command, env=environment, start_new_session=True)

    def ask(request: Any) -> tuple[int, Any]:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", json.dumps(request).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    end = time.monotonic() + 200
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).close()
            break
        except OSError:
            assert time.monotonic() < end
            assert server.poll() is None
            time.sleep(0.2)
    yield ask
    os.killpg(server.pid, 15)
    server.wait(timeout=30)


def test_a_posted_file_is_answered_with_its_features(
    post: Callable[[Any], tuple[int, Any]], encoder: Encoder
) -> None:
    films = [{"film": base64.b64encode(data).decode()} for data in (FILM, b"no film")]
    status, answer = post({"dataframe_records": films})
    assert status == 200
    taken, rejected = answer["predictions"]
    np.testing.assert_allclose(taken["feature"], encoder(FILM)[0], atol=1e-6)
    assert (rejected["feature"], rejected["reason"]) == (None, "not_dicom")
    status, answer = post({"dataframe_records": [{"pixels": GREYS.tolist()}]})
    assert status == 200
    np.testing.assert_allclose(answer["predictions"][0]["feature"], encoder(GREYS)[0], atol=1e-6)
    floats = np.linspace(0, 1, 200 * 300).reshape(200, 300).tolist()
    status, answer = post({"dataframe_records": [{"pixels": floats}]})
    assert status == 400
    assert "Can not safely convert float64 to int64" in answer["message"]


def test_the_loaded_model_takes_paths_bytes_and_greys(
    model: str, encoder: Encoder, tmp_path: Path
) -> None:
    import mlflow

    loaded = mlflow.pyfunc.load_model(model)
    assert [column.name for column in loaded.metadata.signature.inputs] == [
        "film", "path", "pixels",
    ]  # fmt: skip
    assert loaded.predict(loaded.input_example)["reason"].tolist() == [None]
    (tmp_path / "film.dcm").write_bytes(FILM)
    for request in (
        {"film": [FILM]},
        {"path": [str(tmp_path)]},
        {"path": [f"{tmp_path}/film.dcm"]},
    ):
        found = loaded.predict(pd.DataFrame(request))
        np.testing.assert_allclose(found["feature"][0], encoder(FILM)[0], atol=1e-6)
    tokens = loaded.predict(pd.DataFrame({"film": [FILM]}), params={"kind": "patches"})
    assert np.shape(tokens["feature"][0]) == (4, 8)
    for wrong, said in (
        ({"pixels": [(GREYS.astype(int) * 9).tolist()]}, "whole grey values in 0..255"),
        ({"film": [FILM], "path": ["x"]}, "found film, path"),
    ):
        with pytest.raises(ValueError, match=said):
            loaded.predict(pd.DataFrame(wrong))
    with pytest.raises(mlflow.MlflowException, match="Failed to enforce schema"):
        loaded.predict(np.random.default_rng(0).random((1, 200, 300)))
