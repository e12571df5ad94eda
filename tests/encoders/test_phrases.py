"""Phrases: the same words give the same vector, other words another; parity of text towers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lapvqa import storage
from lapvqa.errors import CheckpointError, ConfigError
from lapvqa.evaluation.encoders.phrases import TransformersPhrases, open_phrases, token_signs
from lapvqa.networks.weights import serialise
from lapvqa.params import ModelParams
from lapvqa.pretrain.model import initial_model
from lapvqa.text.bpe import EOT, encoding

GOLDEN_SIGNS = [[155, 216], [223, 130], [216, 136]]
GOLDEN_VECTOR = [-0.0268028, 0.0804084, 0.0268028, -0.0804084]
PHRASES = ["Small left pleural effusion", "right lower lobe opacity", "cardiomegaly"]


def test_words_are_fixed_for_ever() -> None:
    """Golden: the first signs of three tokens, and one phrase."""
    signs = np.stack([token_signs(token)[:16] for token in (0, 1, 50256)])
    assert set(np.unique(signs)) == {-1.0, 1.0}
    packed = np.packbits(signs > 0, axis=1).tolist()
    assert packed == GOLDEN_SIGNS
    vector = open_phrases("words", None)(["left pleural effusion"])[0]
    np.testing.assert_allclose(vector[:4], GOLDEN_VECTOR, atol=1e-7)


def test_words_tell_phrases_apart() -> None:
    encoder = open_phrases("words", None)
    found = encoder(PHRASES)
    assert found.dtype == np.float32
    assert found.shape == (3, encoder.width)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    other = encoder(["small LEFT  pleural effusion ", "left small effusion pleural"])
    np.testing.assert_array_equal(other[0], found[0])
    np.testing.assert_allclose(other[1], found[0], atol=1e-6)
    # Shared words bring phrases near, unrelated ones are nearly at right angles.
    near = encoder(["small right pleural effusion"])[0]
    assert near @ found[0] > 0.6
    assert abs(found[0] @ found[1]) < 0.3


def test_tokens_vectors_are_nearly_at_right_angles() -> None:
    signs = np.stack([token_signs(token) for token in range(0, 50257, 250)]) / 16
    products = signs @ signs.T
    np.fill_diagonal(products, 0)
    assert np.abs(products).max() < 0.4
    assert abs(products.std() - 1 / 16) < 0.005


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_phrase_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        open_phrases("words", None)(["opacity", text])


def model_folder(folder: Path, objective: str) -> tuple[Path, Any]:
    sizes = ModelParams(
        image_size=32, patch_size=8, width=32, depth=1, heads=2, pooled_grid=2,
        decoder_width=24, decoder_depth=1, decoder_heads=2,
        text_width=40, text_depth=1, text_heads=2, embed_dim=16,
    )  # fmt: skip
    model = initial_model(sizes, seed=1, objective=objective).eval()
    storage.write_bytes(folder / "model_best.pt", serialise(model.state_dict()))
    card = {"model": sizes.model_dump(), "objective": objective, "init_seed": 1}
    storage.write_json(folder / "card.json", card)
    return folder, model


def unit(vectors: torch.Tensor) -> np.ndarray:
    normed: np.ndarray = torch.nn.functional.normalize(vectors, dim=-1).detach().numpy()
    return normed


def test_own_phrases_of_a_captioning_model(tmp_path: Path) -> None:
    folder, model = model_folder(tmp_path, "captioning")
    encoder = open_phrases("own", folder)
    assert encoder.width == 24
    ids = encoding().encode_ordinary(" " + PHRASES[1])
    expected = unit(model.decoder.token_embed.weight[ids].mean(dim=0))
    np.testing.assert_allclose(encoder(PHRASES)[1], expected, atol=1e-6)


def test_own_phrases_of_a_model_that_does_both(tmp_path: Path) -> None:
    """The vector of its layers of words, before it is mapped to the images' space."""
    folder, model = model_folder(tmp_path, "coca")
    encoder = open_phrases("own", folder)
    assert encoder.width == 24
    ids = torch.tensor([[EOT, *encoding().encode_ordinary(PHRASES[0])]])
    _, summary = model.read(ids, torch.ones_like(ids, dtype=torch.bool))
    np.testing.assert_allclose(encoder(PHRASES)[0], unit(model.text_norm(summary))[0], atol=1e-6)


@pytest.mark.parametrize("objective", ["contrastive", "sigmoid"])
def test_own_phrases_of_a_pair_model(objective: str, tmp_path: Path) -> None:
    folder, model = model_folder(tmp_path, objective)
    encoder = open_phrases("own", folder)
    assert encoder.width == 40
    ids = torch.tensor([[EOT, *encoding().encode_ordinary(PHRASES[0]), EOT]])
    expected = unit(model.text_encoder(ids, torch.ones_like(ids, dtype=torch.bool)))[0]
    np.testing.assert_allclose(encoder(PHRASES)[0], expected, atol=1e-6)


def tokenizer() -> PreTrainedTokenizerFast:
    """Words to ids, with an end as CLIP's and SigLIP's tokenizers add it."""
    words = ["<pad>", "<s>", "<unk>", "</s>", *" ".join(PHRASES).lower().split()]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_text_towers_give_the_librarys_own_features(kind: str, tmp_path: Path) -> None:
    make = {"clip": tiny.clip, "siglip": tiny.siglip}[kind]
    model: Any = make()
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    encoder = open_phrases(str(tmp_path), None)
    # All at once, padded as the library's processor of each pads.
    inputs = dict(
        tokenizer()(
            PHRASES, padding="max_length" if kind == "siglip" else True, max_length=16,
            truncation=True, return_tensors="pt",
        )
    )  # fmt: skip
    if kind == "siglip":  # as its processor: no mask
        inputs = {"input_ids": inputs["input_ids"]}
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        expected = unit(model.get_text_features(**inputs).pooler_output)
    found = encoder(PHRASES)
    assert found.dtype == np.float32
    assert found.shape == (3, encoder.width)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(encoder(PHRASES[1:]), found[1:])  # alone, bit by bit


def test_choices_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without a model"):
        open_phrases("own", None)
    with pytest.raises(ConfigError, match="no folder here"):
        open_phrases("word2vec", None)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(CheckpointError, match="model_type is 'vit'"):
        TransformersPhrases(tmp_path)
    tiny.clip().save_pretrained(tmp_path)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=r"accepted: tokenizer.json"):
        TransformersPhrases(tmp_path)
