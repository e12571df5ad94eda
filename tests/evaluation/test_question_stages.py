"""Questions about the demo's images: from the published layouts to answers and metrics."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from demo_project import MACHINE, build
from jobs import make_job
from watched_computing import nothing_outside

from lapvqa import storage
from lapvqa.diffvqa.model import DiffVQAHead
from lapvqa.errors import ConfigError
from lapvqa.evaluation import features
from lapvqa.evaluation.encoders.open_encoder import open_encoder
from lapvqa.evaluation.evaluate import EncoderSet, evaluate, load_encoders
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.evaluation.task_table import find
from lapvqa.heads import checkpoint
from lapvqa.heads.text import of_size
from lapvqa.params import (
    BootstrapParams,
    EvaluateParams,
    ModelParams,
    RecipeParams,
    TextHeadParams,
    load_params,
)
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import ANSWER_PREDICTIONS
from lapvqa.vqa.model import VQAHead

SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
)  # fmt: skip
HEAD = TextHeadParams(d_model=32, num_layers=1, nhead=2)
RECIPE = RecipeParams(epochs=1, batch_size=32, lr=1e-3)
HEADS = {"vqa": VQAHead, "diffvqa": DiffVQAHead}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return build(tmp_path_factory, tmp_path_factory.mktemp("questions"), SIZES)


def parameters(repository: Path, **changes: Any) -> EvaluateParams:
    shipped = load_params(repository / "params.yaml").evaluate
    update = {"head": HEAD, "recipe": RECIPE, "max_new_tokens": 8, **changes}
    return shipped.model_copy(
        update={
            "common": BootstrapParams(bootstrap_draws=50),
            "vqa": shipped.vqa.model_copy(update=update),
            "diffvqa": shipped.diffvqa.model_copy(update=update),
        }
    )


def judge(
    task: str, project: Project, params: EvaluateParams, results: Path, encoders: Any = None
) -> dict[str, Any]:
    """Run a task on encoders (by default those of the project); return metrics.json."""
    folder = project.model_dir("captioning")
    judged = EncoderSet(lambda: encoders or load_encoders(folder), results, folder)
    recorder = Recorder(results / "record.jsonl", stage="evaluate", quiet=True)
    try:
        with nothing_outside():
            evaluate(find(task), judged, params, make_job(project, MACHINE, recorder))
    finally:
        recorder.close()
    return json.loads((results / task / "metrics.json").read_text())


@pytest.fixture(scope="module")
def judged(
    demo: Project, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, Any], Path]]:
    """Return a task's metrics.json and folder of results with the usual parameters, made once."""

    @cache
    def once(task: str) -> tuple[dict[str, Any], Path]:
        results = tmp_path_factory.mktemp(f"judged_{task}")
        return judge(task, demo, parameters(repository), results), results / task

    return once


@pytest.mark.parametrize("task", HEADS)
def test_every_test_question_gets_an_answer_of_every_system(
    task: str, judged: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    metrics, folder = judged(task)
    path = folder / "predictions.parquet"
    rows = storage.read_table(path, ANSWER_PREDICTIONS, made_by="x").to_pylist()
    assert metrics["status"] == "ok"
    assert metrics["num_samples"] == len(rows) / 2 > 5
    assert {row["system"] for row in rows} == {"trained", "untrained"}
    assert all((row["reference_image"] is not None) == (task == "diffvqa") for row in rows)
    protocol = metrics["protocol"]
    assert (
        protocol["questions_kept"]
        + sum(count for key, count in protocol.items() if key.startswith("questions_left_out"))
        == protocol["questions_read"]
    )
    assert protocol["patients_in_train_and_test"] == 0
    assert protocol["epoch_trained"] == 1


@pytest.mark.parametrize("task", HEADS)
def test_the_head_is_written_in_its_published_form(
    task: str, judged: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    path = judged(task)[1] / "extra" / "head.pt"
    assert torch.load(path, weights_only=True)["tok_emb.weight"].shape == (50257, 32)
    loaded = checkpoint.load(of_size(HEADS[task], **HEAD.model_dump()), path, vis_dim=32)
    assert loaded.head.log_count is None


@pytest.mark.parametrize("task", HEADS)
def test_equal_runs_give_equal_bytes_and_store_no_token_that_is_read_once(
    task: str, judged: Callable[[str], tuple[dict[str, Any], Path]], demo: Project,
    repository: Path, tmp_path: Path,
) -> None:  # fmt: skip
    first = judged(task)[1]
    judge(task, demo, parameters(repository), tmp_path)
    for name in ("predictions.parquet", "metrics.json", "curves.csv", "extra/head.pt"):
        assert (tmp_path / task / name).read_bytes() == (first / name).read_bytes(), name
    assert not list(demo.work_dir("features").rglob("pooled/*.npy"))


def test_native_trains_a_copy_of_the_encoder_which_loads_as_an_export(
    demo: Project, repository: Path, tmp_path: Path
) -> None:
    folder = demo.model_dir("captioning")
    encoder = load_encoders(folder)["trained"]
    before = features.encoder_digest(encoder)
    for mode in ("frozen", "native"):
        recipe = RECIPE.model_copy(update={"encoder": mode, "encoder_lr": 1e-3})
        params = parameters(repository, recipe=recipe)
        judge("vqa", demo, params, tmp_path / mode, {"trained": encoder})
        assert features.encoder_digest(encoder) == before
    assert not (tmp_path / "frozen/vqa/extra/encoder.pt").exists()
    (tmp_path / "export").mkdir()
    shutil.copy(folder / "card.json", tmp_path / "export" / "card.json")
    shutil.copy(tmp_path / "native/vqa/extra/encoder.pt", tmp_path / "export/encoder_final.pt")
    assert features.encoder_digest(open_encoder(tmp_path / "export")) != before


def test_several_seeds_are_several_heads_of_each_system(
    demo: Project, repository: Path, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"seeds": 2})
    metrics = judge("vqa", demo, parameters(repository, recipe=recipe), tmp_path)
    assert set(metrics["systems"]) == set(metrics["seeds"]) == {"trained", "untrained"}
    assert {
        f"epoch_{name}" for name in ("trained", "trained@1", "untrained", "untrained@1")
    } <= set(metrics["protocol"])
    found = {name: one["bleu1"] for name, one in metrics["seeds"].items()}
    for name, one in found.items():
        mean = metrics["systems"][name]["bleu1"]["value"]
        assert mean == pytest.approx(np.mean(one["values"]), abs=1e-6)


class Oracle(ImageEncoder):
    """Not an encoder: its tokens are a hash of the pixels, so every image is another."""

    width = 32
    about = "a hash of the pixels"

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        seeds = pixels.long().sum(dim=(1, 2)).tolist()
        rows = [np.random.default_rng(seed).normal(size=(4, 32)) for seed in seeds]
        return torch.tensor(np.stack(rows), dtype=torch.float32, device=pixels.device)

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        return self(pixels)


def test_a_head_learns_what_the_questions_give_away(
    demo: Project, repository: Path, tmp_path: Path
) -> None:
    recipe = RecipeParams(epochs=8, batch_size=16, lr=3e-3)
    params = parameters(repository, recipe=recipe)
    metrics = judge("vqa", demo, params, tmp_path, {"noise": Oracle()})
    assert metrics["systems"]["noise"]["exact_match"]["value"] > 0.3


def test_too_long_an_answer_is_refused_before_training(
    demo: Project, repository: Path, tmp_path: Path
) -> None:
    params = parameters(repository, max_new_tokens=150)
    with pytest.raises(ConfigError, match=r"evaluate\.vqa\.max_new_tokens is 150"):
        judge("vqa", demo, params, tmp_path)


def test_without_the_dataset_every_file_says_why(
    demo: Project, repository: Path, tmp_path: Path
) -> None:
    elsewhere = Project(tmp_path)
    for path in ("params.yaml", "data/inventory/diff_vqa.parquet"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((demo.root / path).read_bytes())
    encoders = load_encoders(demo.model_dir("captioning"))
    metrics = judge("diffvqa", elsewhere, parameters(repository), tmp_path / "results", encoders)
    assert metrics["status"] == "not computed"
    assert "inventory.diff_vqa" in metrics["reason"]
    assert pq.read_table(tmp_path / "results" / "diffvqa" / "predictions.parquet").num_rows == 0
    assert (tmp_path / "results" / "diffvqa" / "extra" / "files.json").exists()
