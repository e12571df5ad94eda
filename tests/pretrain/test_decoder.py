"""Captions: causal, independent of padding and batch, and equal with and without a cache."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lapvqa.networks.generation import BEGIN, END, generate
from lapvqa.params import ModelParams
from lapvqa.pretrain.model import CaptioningModel, initial_model


@pytest.fixture
def model(sizes: ModelParams) -> CaptioningModel:
    """A model that writes captions of different lengths."""
    model = initial_model(sizes, seed=3).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
        # Few likely tokens, the end among them, and a choice that changes with the place.
        model.decoder.token_embed.weight[12:END] = 0
        model.decoder.pos_embed.mul_(4)
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randn(12, 1, 32, 32, generator=torch.Generator().manual_seed(5)) * 3


def written_without_cache(model: CaptioningModel, image: Tensor, max_new_tokens: int) -> list[int]:
    token_ids = [BEGIN]
    for _ in range(max_new_tokens):
        logits = model(image[None], torch.tensor([token_ids]))
        token_ids.append(int(logits[0, -1].argmax()))
        if token_ids[-1] == END:
            return token_ids[1:-1]
    return token_ids[1:]


def test_generates_what_a_plain_loop_generates(model: CaptioningModel, images: Tensor) -> None:
    with torch.no_grad():
        expected = [written_without_cache(model, image, 20) for image in images]
    assert generate(model, images, max_new_tokens=20) == expected
    lengths = {len(caption) for caption in expected}
    assert len(lengths) > 2, "captions of one length would not test that done rows leave"


def test_stops_at_the_number_of_tokens_asked_for(model: CaptioningModel, images: Tensor) -> None:
    short = generate(model, images, max_new_tokens=3)
    long = generate(model, images, max_new_tokens=20)
    assert short == [caption[:3] for caption in long]
    with pytest.raises(ValueError, match=r"max_new_tokens is 513, expected 1\.\.512"):
        generate(model, images, max_new_tokens=513)


def test_a_token_sees_none_that_follow(model: CaptioningModel, images: Tensor) -> None:
    token_ids = torch.randint(0, 11, (12, 9))
    changed = token_ids.clone()
    changed[:, 5:] = 11
    with torch.no_grad():
        before, after = model(images, token_ids), model(images, changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_the_image_matters(model: CaptioningModel, images: Tensor) -> None:
    token_ids = torch.randint(0, 11, (12, 4))
    assert not torch.allclose(model(images, token_ids), model(images.flip(0), token_ids))


def test_more_tokens_than_positions_is_an_error(model: CaptioningModel, images: Tensor) -> None:
    with pytest.raises(ValueError, match="expected at most 512 tokens, found 513"):
        model(images[:1], torch.zeros(1, 513, dtype=torch.long))
