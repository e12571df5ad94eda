"""The published cards' snippets, as a user writes them, on files in the published forms.

The weights are random and written by torch alone, so nothing of ours stands between file and class.
What a snippet gives is compared with what the weights gave before they were written.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from torch import Tensor, nn

from lapvqa.heads.checkpoint import load, save
from lapvqa.heads.head import Head
from lapvqa.text.bpe import encoding

WIDTHS = {
    "clip-vit-l14": 1024,
    "siglip": 1152,
    "florence2": 1024,
    "coca": 768,
    "owlv2": 1024,
    "mae-vit-l16": 1024,
}
QUESTION = "is there a pleural effusion?"
EMBEDDED = 512


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snippets name files of the working folder, and tiktoken would ask the network."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "gpt2", encoding())
    return tmp_path


def tokens(seed: int, batch: int, width: int, count: int = 256) -> Tensor:
    """Return visual tokens that differ by image more than within one."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, 1, width, generator=generator)
    return image + 0.3 * torch.randn(batch, count, width, generator=generator)


def random_weights(head: nn.Module, seed: int) -> None:
    """Make what the head says depend on the image, which initial weights hardly do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def write_dict(head: Head, name: str, **facts: int | float | str) -> None:
    """Write the dict of the cards rrg, ad, pg; ours must have the same names."""
    torch.save({"state_dict": head.state_dict(), **facts}, name)
    ours = Path(f"ours-{name}")
    save(head, ours, **{key: facts[key] for key in head.form.facts})
    written = torch.load(ours, weights_only=True)
    assert {key: value for key, value in written.items() if key != "state_dict"} == facts
    assert set(written["state_dict"]) == set(head.state_dict())


def check_texts(texts: Any, *, like: list[list[int]]) -> None:
    """Texts are lists of ids, one per image, each its own, and those of the weights written."""
    enc = tiktoken.get_encoding("gpt2")
    assert texts == like
    assert len({tuple(ids) for ids in texts}) == len(texts)
    for ids in texts:
        assert all(type(one) is int and one != enc.eot_token for one in ids)


# Task heads


@pytest.mark.parametrize("name", ["pretrain-captioning_best.pt", "siglip_best.pt"])
def test_vqa(name: str) -> None:
    from lapvqa.vqa.model import VQAHead

    vis_dim = WIDTHS.get(name.removesuffix("_best.pt"), 1024)
    made = VQAHead(vis_dim=vis_dim).eval()
    random_weights(made, 1)
    torch.save(made.state_dict(), name)
    vis_tokens = tokens(1, 2, vis_dim)

    enc = tiktoken.get_encoding("gpt2")
    bos_id = eos_id = enc.eot_token
    head = VQAHead(vis_dim=vis_dim)
    head.load_state_dict(torch.load(name, map_location="cpu", weights_only=True))
    head.eval()
    prompt_ids = torch.tensor([enc.encode(QUESTION)] * 2)
    texts = head.generate(
        vis_tokens=vis_tokens,
        prompt_ids=prompt_ids,
        bos_id=bos_id,
        eos_id=eos_id,
        max_new_tokens=64,
    )
    answers = [enc.decode(ids) for ids in texts]

    assert len(answers) == 2
    assert all(isinstance(answer, str) for answer in answers)
    # What generate writes is what forward finds most likely, begin and question before it.
    begin = torch.full((2, 1), bos_id)
    with torch.no_grad():
        first = made(vis_tokens, torch.cat([begin, prompt_ids], dim=1))[:, -1].argmax(dim=-1)
    assert [ids[:1] or [eos_id] for ids in texts] == [[int(one)] for one in first]
    check_texts(texts, like=made.generate(
        vis_tokens=vis_tokens, prompt_ids=prompt_ids, bos_id=bos_id, eos_id=eos_id
    ))  # fmt: skip


@pytest.mark.parametrize("name", ["pretrain-captioning_best.pt", "coca_best.pt"])
def test_diffvqa(name: str) -> None:
    from lapvqa.diffvqa.model import DiffVQAHead

    vis_dim = WIDTHS.get(name.removesuffix("_best.pt"), 1024)
    made = DiffVQAHead(vis_dim=vis_dim).eval()
    random_weights(made, 2)
    torch.save(made.state_dict(), name)
    curr_vis, ref_vis = tokens(2, 2, vis_dim), tokens(3, 2, vis_dim)

    enc = tiktoken.get_encoding("gpt2")
    head = DiffVQAHead(vis_dim=vis_dim)
    head.load_state_dict(torch.load(name, map_location="cpu", weights_only=True))
    head.eval()
    prompt_ids = torch.tensor([enc.encode("what has changed compared to the reference?")] * 2)
    texts = head.generate(
        curr_vis=curr_vis,
        ref_vis=ref_vis,
        prompt_ids=prompt_ids,
        bos_id=enc.eot_token,
        eos_id=enc.eot_token,
        max_new_tokens=128,
    )
    answers = [enc.decode(ids) for ids in texts]

    assert all(isinstance(answer, str) for answer in answers)
    same = {"prompt_ids": prompt_ids, "bos_id": enc.eot_token, "eos_id": enc.eot_token}
    check_texts(texts, like=made.generate(curr_vis=curr_vis, ref_vis=ref_vis, **same))
    with torch.no_grad():
        found, swapped = made(curr_vis, ref_vis, prompt_ids), made(ref_vis, curr_vis, prompt_ids)
    assert not torch.allclose(found, swapped, atol=1e-2)


@pytest.mark.parametrize(
    ("encoder", "sizes"),
    [
        ("mae-vit-l16", {"d_model": 512, "num_layers": 6, "nhead": 8}),
        ("siglip", {"d_model": 256, "num_layers": 3, "nhead": 4}),
    ],
)
def test_rrg(encoder: str, sizes: Mapping[str, int]) -> None:
    from lapvqa.rrg.heads import ReportGenerationHead

    made = ReportGenerationHead(vis_dim=WIDTHS[encoder], **sizes).eval()
    random_weights(made, 4)
    facts = {"vis_dim": WIDTHS[encoder], **sizes, "encoder": encoder, "epoch": 7}
    write_dict(made, f"{encoder}.pt", **facts, val_bleu4=0.032)
    vis_tokens = tokens(4, 2, WIDTHS[encoder])

    enc = tiktoken.get_encoding("gpt2")
    ckpt = torch.load(f"{encoder}.pt", map_location="cpu", weights_only=True)
    head = ReportGenerationHead(
        vis_dim=ckpt["vis_dim"],
        d_model=ckpt["d_model"],
        num_layers=ckpt["num_layers"],
        nhead=ckpt["nhead"],
    )
    head.load_state_dict(ckpt["state_dict"])
    head.eval()
    texts = head.generate(
        vis_tokens=vis_tokens, bos_id=enc.eot_token, eos_id=enc.eot_token, max_new_tokens=48
    )
    reports = [enc.decode(ids) for ids in texts]

    assert all(isinstance(report, str) for report in reports)
    like = {"vis_tokens": vis_tokens, "bos_id": enc.eot_token, "eos_id": enc.eot_token}
    check_texts(texts, like=made.generate(**like, max_new_tokens=48))
    assert load(ReportGenerationHead, Path(f"{encoder}.pt")).facts["val_bleu4"] == 0.032


@pytest.mark.parametrize("encoder", WIDTHS)
def test_ad(encoder: str) -> None:
    from lapvqa.ad.heads import DetectionHead, predict

    sizes = {"vis_dim": WIDTHS[encoder], "d_model": 256, "num_queries": 20}
    made = DetectionHead(**sizes, num_enc_layers=2, num_dec_layers=3).eval()
    random_weights(made, 5)
    facts = {**sizes, "num_enc": 2, "num_dec": 3, "encoder": encoder, "epoch": 9}
    write_dict(made, f"{encoder}.pt", **facts, val_map40=0.048, val_map50=0.031)
    vis_tokens = tokens(5, 2, WIDTHS[encoder], count=729)

    ckpt = torch.load(f"{encoder}.pt", map_location="cpu", weights_only=True)
    head = DetectionHead(
        vis_dim=ckpt["vis_dim"],
        d_model=ckpt["d_model"],
        num_queries=ckpt["num_queries"],
        num_enc_layers=ckpt["num_enc"],
        num_dec_layers=ckpt["num_dec"],
    )
    head.load_state_dict(ckpt["state_dict"])
    head.eval()
    results = predict(head, vis_tokens)

    assert len(results) == 2
    with torch.no_grad():
        logits, boxes = made(vis_tokens)
    assert logits.shape == (2, 20, 15)
    for found, logit, box in zip(results, logits, boxes, strict=True):
        scores, labels = logit.softmax(dim=-1)[:, :14].max(dim=-1)
        order = scores.argsort(descending=True)
        torch.testing.assert_close(found["scores"], scores[order])
        torch.testing.assert_close(found["labels"], labels[order])
        centre, size = box[order, :2], box[order, 2:]
        corners = torch.cat([centre - size / 2, centre + size / 2], dim=1).clamp(0, 1)
        torch.testing.assert_close(found["boxes"], corners)
    assert not torch.equal(results[0]["boxes"], results[1]["boxes"])


@pytest.mark.parametrize("encoder", WIDTHS)
def test_pg(encoder: str) -> None:
    from lapvqa.pg.heads import VisualGroundingHead

    txt_dim = 1152 if encoder == "siglip" else 768
    sizes = {"vis_dim": WIDTHS[encoder], "txt_dim": txt_dim, "d_model": 256, "num_layers": 3}
    made = VisualGroundingHead(**sizes).eval()
    random_weights(made, 6)
    facts = {**sizes, "encoder": encoder, "epoch": 2}
    write_dict(made, f"{encoder}.pt", **facts, val_miou=0.32, val_acc50=0.21)
    vis_tokens = tokens(6, 2, WIDTHS[encoder], count=729)
    phrase = torch.randn(2, txt_dim, generator=torch.Generator().manual_seed(6))

    ckpt = torch.load(f"{encoder}.pt", map_location="cpu", weights_only=True)
    head = VisualGroundingHead(
        vis_dim=ckpt["vis_dim"],
        txt_dim=ckpt["txt_dim"],
        d_model=ckpt["d_model"],
        num_layers=ckpt["num_layers"],
    )
    head.load_state_dict(ckpt["state_dict"])
    head.eval()
    with torch.no_grad():
        boxes = head(vis_tokens, phrase)

    assert boxes.shape == (2, 4)
    assert ((boxes > 0) & (boxes < 1)).all()
    with torch.no_grad():
        torch.testing.assert_close(boxes, made(vis_tokens, phrase))
        assert not torch.allclose(boxes, made(vis_tokens, phrase.flip(0)))
        assert not torch.allclose(boxes, made(vis_tokens.flip(0), phrase))


# Encoders, at ViT-L/14, 384 pixels: 1.2 GB each


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files of a captioning card, with initial weights."""
    from lapvqa.pretrain.model import CaptioningModel

    folder = tmp_path_factory.mktemp("published")
    made = CaptioningModel()
    torch.save(made.state_dict(), folder / "model_best.pt")
    torch.save(made.vision_encoder.state_dict(), folder / "encoder_final.pt")
    del made
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(1, 3, 384, 384, generator=torch.Generator().manual_seed(7))


def snippet_of(page: Path, containing: str) -> str:
    """Return the one indented block of a page that contains some code."""
    blocks = re.findall(r"(?:^ {4}.*\n|^\n)+", page.read_text(), flags=re.MULTILINE)
    (found,) = [block for block in blocks if containing in block]
    return re.sub("^ {4}", "", found, flags=re.MULTILINE)


@pytest.mark.slow
def test_pretrain_captioning_and_readme(
    published: Path, repository: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """README.md's lines, run as they stand; then the card's second file, and a head's answer."""
    from lapvqa.vqa.model import VQAHead

    monkeypatch.chdir(published)
    names: dict[str, Any] = {"images": images}
    with torch.no_grad():
        exec(snippet_of(repository / "README.md", "CaptioningModel()"), names)
    model, features = names["model"], names["features"]
    assert features.shape == (1, 256, 1024)
    assert features.isfinite().all()
    weights = torch.load("encoder_final.pt", map_location="cpu", weights_only=True)
    model.vision_encoder.load_state_dict(weights)
    assert len(weights) == 294
    assert sum(weight.numel() for weight in weights.values()) == 303_663_104

    enc = tiktoken.get_encoding("gpt2")
    texts = VQAHead(vis_dim=1024).generate(
        vis_tokens=features, prompt_ids=torch.tensor([enc.encode(QUESTION)]), bos_id=enc.eot_token,
        eos_id=enc.eot_token, max_new_tokens=2,
    )  # fmt: skip
    assert isinstance(enc.decode(texts[0]), str)


@pytest.mark.slow
def test_pretrain_contrastive_and_sigmoid(
    published: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One class for both cards, and the encoder of all three."""
    from lapvqa.pretrain.model import ContrastiveModel

    monkeypatch.chdir(published)
    model = ContrastiveModel()
    model.vision_encoder.load_state_dict(
        torch.load("encoder_final.pt", map_location="cpu", weights_only=True)
    )
    model.eval()
    enc = tiktoken.get_encoding("gpt2")
    token_ids = torch.tensor([[enc.eot_token, *enc.encode("No effusion."), enc.eot_token]])
    with torch.no_grad():
        embeddings = model(images, token_ids, torch.ones_like(token_ids, dtype=torch.bool))
    for embedding in embeddings:
        assert embedding.shape == (1, EMBEDDED)
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(1))
