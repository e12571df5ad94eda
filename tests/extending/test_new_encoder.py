"""A new family of encoders is one module and a branch: the example of docs/extending.md, run."""

from __future__ import annotations

import shutil
from pathlib import Path

import from_tiny
import pytest
import safetensors.torch
import torch
from demo_project import build
from from_tiny import PatchEmbedding
from worked_example import assert_shown, copy_package, insert, run

from lapvqa import storage
from lapvqa.params import ModelParams

MODULE = Path(__file__).parent / "from_tiny.py"
IMPORT = "from lapvqa.evaluation.encoders.from_tiny import TINY_CONFIG, open_tiny\n"
BRANCH = """\
    if (folder / TINY_CONFIG).is_file():
        return open_tiny(folder)
"""
WORDS = '    "a tiny folder (tiny.json with tiny.safetensors), "\n'
LISTED = "    from_tiny.py          patch embeddings: tiny.json with tiny.safetensors\n"

SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=1, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
)  # fmt: skip


def save(folder: Path) -> Path:
    tower = PatchEmbedding(patch=16, width=24)
    weights = safetensors.torch.save(tower.state_dict())
    storage.write_bytes(folder / "tiny.safetensors", weights)
    storage.write_json(folder / "tiny.json", {"size": 96, "patch": 16, "mean": 0.5, "std": 0.25})
    return folder


@pytest.mark.slow
def test_a_folder_of_the_new_form_is_judged(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> None:
    root = tmp_path / "project"
    copy_package(repository, root)
    encoders = root / "lapvqa/evaluation/encoders"
    shutil.copy(MODULE, encoders)
    opening = encoders / "open_encoder.py"
    insert(opening, IMPORT, before="from lapvqa.evaluation.encoders.from_transformers import")
    insert(opening, BRANCH, before='    config = read_config(folder / "config.json")')
    insert(opening, WORDS, before='    "an open_clip folder')
    insert(encoders / "__init__.py", LISTED, before="    open_encoder.py ")
    project = build(tmp_path_factory, root, SIZES)
    project.local.write_text("{workers: 1, device: cpu}\n")
    quick = project.params.read_text().replace("bootstrap_draws: 1000", "bootstrap_draws: 50")
    project.params.write_text(quick)
    folder = save(tmp_path / "Tiny one")

    run(root, "flows.cli", "evaluate", "probe_nih14", "--encoder", str(folder), "--json")
    result = project.evaluations_dir("tiny-one")
    metrics = storage.read_json(result / "probe_nih14" / "metrics.json", made_by="evaluate")
    assert set(metrics["systems"]) == {"tiny-one"}
    assert 0 <= metrics["systems"]["tiny-one"]["mean_auc"]["value"] <= 1
    assert metrics["protocol"]["encoder_tiny-one"].startswith("tiny patch embedding; whole stored")


def test_the_tokens_are_the_squares_of_the_image_by_rows(tmp_path: Path) -> None:
    folder = save(tmp_path)
    encoder = from_tiny.open_tiny(folder).eval()
    pixels = torch.zeros(2, 384, 384, dtype=torch.uint8)
    pixels[1, 80:112, 336:368] = 200  # of the grid of 6 x 6, within the second row's last
    tokens = encoder.patches(pixels)
    assert tokens.shape == (2, 36, 24)
    changed = (tokens[0] != tokens[1]).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [11]


def test_the_document_shows_these_very_lines(repository: Path) -> None:
    assert_shown(repository, files=[MODULE], lines=[IMPORT, BRANCH, WORDS, LISTED])
