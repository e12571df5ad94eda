"""Files of heads: published forms written, read back, and refused by name if they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_heads import VIS_DIM, TinyDiffVQA, TinyReport, TinyVQA, make, make_detector

from lapvqa.ad.heads import DetectionHead
from lapvqa.errors import CheckpointError, MissingArtifactError
from lapvqa.heads.checkpoint import load, save
from lapvqa.heads.head import Head
from lapvqa.pg.heads import VisualGroundingHead

MADE: dict[type[Head], tuple[Head, dict[str, Any]]] = {
    TinyVQA: (make(TinyVQA), {}),
    TinyDiffVQA: (make(TinyDiffVQA), {}),
    TinyReport: (make(TinyReport), {"encoder": "ours", "epoch": 3, "val_bleu4": 0.03}),
    DetectionHead: (
        make_detector(),
        {"encoder": "ours", "epoch": 1, "val_map40": 0.04, "val_map50": 0.02},
    ),
    VisualGroundingHead: (
        VisualGroundingHead(16, 10, 32, 2),
        {"encoder": "ours", "epoch": 1, "val_miou": 0.3, "val_acc50": 0.2},
    ),
}
PUBLISHED_KEYS = {
    TinyReport: "state_dict vis_dim d_model num_layers nhead encoder epoch val_bleu4",
    DetectionHead: "state_dict vis_dim d_model num_queries num_enc num_dec encoder epoch val_map40 "
    "val_map50",
    VisualGroundingHead: "state_dict vis_dim txt_dim d_model num_layers encoder epoch val_miou "
    "val_acc50",
}
KINDS = list(MADE)


def write(kind: type[Head], folder: Path) -> Path:
    head, facts = MADE[kind]
    path = folder / "head.pt"
    save(head, path, **facts)
    return path


def edit(path: Path, **changed: Any) -> Path:
    """Change a dict file's entries; None removes one."""
    content = torch.load(path, weights_only=True) | changed
    torch.save({name: value for name, value in content.items() if value is not None}, path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_read_back(kind: type[Head], tmp_path: Path) -> None:
    head, facts = MADE[kind]
    found = load(kind, write(kind, tmp_path), vis_dim=head.vis_dim)
    assert type(found.head) is kind
    assert found.facts == facts
    assert not found.head.training
    expected = head.state_dict()
    assert list(found.head.state_dict()) == list(expected)
    for name, tensor in found.head.state_dict().items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_has_the_published_form(kind: type[Head], tmp_path: Path) -> None:
    content = torch.load(write(kind, tmp_path), weights_only=True)
    if kind in PUBLISHED_KEYS:
        assert set(content) == set(PUBLISHED_KEYS[kind].split())
        content = content["state_dict"]
    assert list(content) == list(MADE[kind][0].state_dict())


def test_the_trap_of_the_names_of_layers(tmp_path: Path) -> None:
    """The file says num_enc, the constructor num_enc_layers; neither number is the other's."""
    path = write(DetectionHead, tmp_path)
    content = torch.load(path, weights_only=True)
    assert (content["num_enc"], content["num_dec"]) == (1, 2)
    head = load(DetectionHead, path).head
    assert (head.num_enc_layers, head.num_dec_layers) == (1, 2)
    assert (len(head.encoder.layers), len(head.decoder.layers)) == (1, 2)
    with pytest.raises(CheckpointError, match="missing num_dec, num_enc, found .* num_enc_layers"):
        load(
            DetectionHead,
            edit(path, num_enc=None, num_dec=None, num_enc_layers=1, num_dec_layers=2),
        )


def test_equal_heads_give_equal_bytes_and_tied_weights_are_written_once(tmp_path: Path) -> None:
    first = write(TinyVQA, tmp_path).read_bytes()
    assert write(TinyVQA, tmp_path).read_bytes() == first
    head = MADE[TinyVQA][0]
    table = head.state_dict()["tok_emb.weight"]
    parameters = sum(parameter.nbytes for parameter in head.parameters())
    assert len(first) < parameters + table.nbytes + 20_000
    loaded = load(TinyVQA, tmp_path / "head.pt").head
    assert loaded.lm_head.weight is loaded.tok_emb.weight


def test_an_untied_head_takes_two_tables_and_a_tied_one_refuses_them(tmp_path: Path) -> None:
    path = tmp_path / "head.pt"
    save(make(TinyDiffVQA, 1), path)
    loaded = load(TinyDiffVQA, path).head
    assert not torch.equal(loaded.lm_head.weight, loaded.tok_emb.weight)
    weights = {name: tensor.clone() for name, tensor in make(TinyVQA).state_dict().items()}
    torch.save(weights, path)
    load(TinyVQA, path)
    weights["lm_head.weight"] += 1
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match="tied to: tok_emb.weight"):
        load(TinyVQA, path)


def test_scores_of_numpy_can_be_read_again(tmp_path: Path) -> None:
    head, facts = MADE[TinyReport]
    save(head, tmp_path / "head.pt", **{**facts, "val_bleu4": np.float64(0.25)})
    assert load(TinyReport, tmp_path / "head.pt").facts["val_bleu4"] == 0.25


def test_a_compiled_or_distributed_head_loads(tmp_path: Path) -> None:
    weights = MADE[TinyVQA][0].state_dict()
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, tmp_path / "h.pt")
    assert torch.equal(load(TinyVQA, tmp_path / "h.pt").head.tok_emb.weight,
                       weights["tok_emb.weight"])  # fmt: skip


def test_loading_leaves_the_generator_alone(tmp_path: Path) -> None:
    path = write(TinyReport, tmp_path)
    before = torch.random.get_rng_state()
    load(TinyReport, path)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("kind", "other"), [(a, b) for a in KINDS for b in KINDS if a is not b])
def test_another_heads_file_is_refused(kind: type[Head], other: type[Head], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"head\.pt.*"):
        load(kind, write(other, tmp_path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"d_model": 64}, "of another shape: .*object_queries|object_queries is"),
        ({"num_queries": 20}, r"object_queries is \[1, 6, 32\], expected \[1, 20, 32\]"),
        ({"num_enc": 2}, r"missing: encoder\.layers\.1\."),
        ({"num_dec": 1}, r"unexpected: decoder\.layers\.1\."),
        ({"vis_dim": 1024}, r"vis_proj\.weight is \[32, 16\], expected \[32, 1024\]"),
        ({"d_model": 33}, "no DetectionHead has these sizes: expected d_model to be a multiple"),
        ({"num_enc": "2"}, "positive whole number for num_enc, found '2'"),
        ({"num_dec": 0}, "positive whole number for num_dec, found 0"),
        ({"num_queries": True}, "positive whole number for num_queries, found True"),
        ({"state_dict": None}, "expected a dict with state_dict and sizes, found dict with"),
        ({"vis_dim": None}, "missing vis_dim"),
    ],
)
def test_sizes_and_weights_that_disagree(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(DetectionHead, edit(write(DetectionHead, tmp_path), **changed))


def test_a_head_for_another_encoder_is_refused(tmp_path: Path) -> None:
    path = write(TinyVQA, tmp_path)
    with pytest.raises(CheckpointError, match=rf"of width 1024, found one for {VIS_DIM}"):
        load(TinyVQA, path, vis_dim=1024)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    weights = {name: tensor.clone() for name, tensor in make(TinyVQA).state_dict().items()}
    weights["vis_proj.bias"][3] = float("inf")
    torch.save(weights, tmp_path / "head.pt")
    with pytest.raises(CheckpointError, match=r"not finite: vis_proj\.bias"):
        load(TinyVQA, tmp_path / "head.pt")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm"),))


@pytest.mark.parametrize("content", [Harmful(), {"state_dict": Harmful()}])
def test_a_file_runs_no_code(content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "head.pt")
    with pytest.raises(CheckpointError, match="damaged or unsafe"):
        load(TinyVQA, tmp_path / "head.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("kept", [0, 10, 2000, -10])
def test_a_damaged_file_is_refused(kept: int, tmp_path: Path) -> None:
    path = write(TinyVQA, tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"head\.pt: expected a head's weights, found a dam"):
        load(TinyVQA, path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, torch.zeros(3)])
def test_other_content_is_described(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "head.pt")
    for kind in (TinyVQA, DetectionHead):
        with pytest.raises(CheckpointError, match=r"head\.pt: expected a (plain state )?dict"):
            load(kind, tmp_path / "head.pt")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match=r"at absent\.pt in "):
        load(TinyVQA, tmp_path / "absent.pt")


@pytest.mark.parametrize(("kind", "facts"), [(TinyVQA, {"epoch": 1}), (TinyReport, {"epoch": 1})])
def test_facts_are_those_of_the_form(
    kind: type[Head], facts: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="expected the facts"):
        save(MADE[kind][0], tmp_path / "head.pt", **facts)
