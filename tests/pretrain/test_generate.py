"""Captions are those of transformers' generate() on the same weights, whatever the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput
from transformers_decoder import make_peer, peer_texts

from lapvqa.networks.decoder import CaptionDecoder, close_gaps
from lapvqa.networks.generation import BEGIN, END, continue_prompts, generate
from lapvqa.params import ModelParams
from lapvqa.pretrain.model import CaptioningModel, initial_model

VOCABULARY, LAST, VISUAL_WIDTH, MAX_NEW = 23, 22, 24, 24
SEEDS = 10
SEARCHES = [(1, 1.0)] + [(beams, penalty) for beams in (2, 4) for penalty in (0.6, 1.0, 2.0)]


SIZES = ModelParams(
    image_size=32, patch_size=8, width=48, depth=1, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=2, decoder_heads=4,
)  # fmt: skip


def make_decoder(seed: int) -> CaptionDecoder:
    """Return a decoder of random weights that ends texts at different lengths."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = CaptionDecoder(
            visual_width=VISUAL_WIDTH, width=32, depth=2, heads=4, vocabulary=VOCABULARY,
            max_length=40,
        )  # fmt: skip
        for parameter in decoder.parameters():
            scale = 0.3 if parameter.ndim > 1 else 0.1
            parameter.data.add_(torch.randn_like(parameter) * scale)
        # A likely end, and a choice that changes with the place: texts of many lengths.
        decoder.token_embed.weight.data[LAST] *= 3
        decoder.pos_embed.data *= 4
    return decoder.eval()


def make_visual(seed: int, batch: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(batch, 1, VISUAL_WIDTH, generator=generator)
    return shared + torch.randn(batch, 5, VISUAL_WIDTH, generator=generator)


def begin(visual: Tensor) -> Tensor:
    return torch.full((len(visual), 1), LAST)


def ours(decoder: CaptionDecoder, visual: Tensor, prompts: Tensor, **how: Any) -> list[list[int]]:
    return continue_prompts(decoder, visual, prompts, max_new_tokens=MAX_NEW, end=LAST, **how)


@pytest.mark.parametrize(("beams", "penalty"), SEARCHES)
def test_tokens_are_those_of_transformers(beams: int, penalty: float) -> None:
    lengths = set()
    for seed in range(SEEDS):
        decoder, visual = make_decoder(seed), make_visual(seed)
        peer = make_peer(decoder)
        for prompts in (begin(visual), prompts_of(seed)):
            expected = peer_texts(
                peer, visual, prompts, max_new_tokens=MAX_NEW, beams=beams, penalty=penalty
            )
            found = ours(decoder, visual, prompts, num_beams=beams, length_penalty=penalty)
            assert found == expected, f"seed {seed}"
            lengths |= {len(text) for text in expected}
    assert len(lengths) >= 12, "texts of few lengths would not test that finished rows leave"


def prompts_of(seed: int) -> Tensor:
    """Return six prompts of four tokens; transformers wants the first to be the beginning."""
    prompts = torch.randint(0, LAST, (6, 4), generator=torch.Generator().manual_seed(seed))
    prompts[:, 0] = LAST
    return prompts


def test_searches_differ_where_they_should() -> None:
    """The parity above would be worth little if all searches found the same."""
    decoder, visual = make_decoder(0), make_visual(0, batch=24)
    found = {how: search(decoder, visual, *how) for how in SEARCHES}
    assert found[1, 1.0] != found[2, 1.0] != found[4, 1.0] != found[4, 2.0] != found[4, 0.6]
    short, long = (sum(map(len, found[4, penalty])) for penalty in (0.6, 2.0))
    assert short < long


def search(decoder: CaptionDecoder, visual: Tensor, beams: int, penalty: float) -> list[list[int]]:
    return ours(decoder, visual, begin(visual), num_beams=beams, length_penalty=penalty)


@torch.no_grad()
def test_logits_are_those_of_transformers() -> None:
    decoder, visual = make_decoder(1), make_visual(1)
    token_ids = torch.randint(0, VOCABULARY, (6, 30), generator=torch.Generator().manual_seed(1))
    encoded = BaseModelOutput(last_hidden_state=visual)
    expected = make_peer(decoder)(encoder_outputs=encoded, decoder_input_ids=token_ids).logits
    found = decoder.logits(decoder(token_ids, visual))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    cache = decoder.start(visual, 30)
    stepped = [decoder.extend(token_ids[:, :20], cache)]
    stepped += [decoder.extend(token_ids[:, place, None], cache) for place in range(20, 30)]
    torch.testing.assert_close(torch.stack(stepped, 1), expected[:, 19:], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="expected one token after the first call, found 2"):
        decoder.extend(token_ids[:, :2], cache)


@pytest.mark.parametrize(("beams", "penalty"), [(1, 1.0), (3, 1.0), (4, 2.0)])
@given(data=st.data())
@settings(max_examples=10)
def test_rows_do_not_influence_each_other(beams: int, penalty: float, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 100))
    decoder, visual = make_decoder(seed), make_visual(seed, batch=12)
    alone = [search(decoder, one[None], beams, penalty)[0] for one in visual]
    rows = data.draw(st.lists(st.integers(0, 11), min_size=1, max_size=20))
    assert search(decoder, visual[rows], beams, penalty) == [alone[row] for row in rows]


def test_greedy_text_is_cut_at_the_number_of_tokens_asked_for() -> None:
    decoder, visual = make_decoder(2), make_visual(2)
    long = ours(decoder, visual, begin(visual))
    for count in (1, 2, 7):
        short = continue_prompts(decoder, visual, begin(visual), max_new_tokens=count, end=LAST)
        assert short == [text[:count] for text in long]


@pytest.mark.parametrize("beams", [1, 2])
def test_a_text_may_fill_every_position(beams: int) -> None:
    decoder, visual = make_decoder(3), make_visual(3)
    never = LAST - 1
    decoder.token_embed.weight.data[never] = 0
    decoder.norm.bias.data += 10 * decoder.token_embed.weight.data[:LAST].mean(dim=0)
    texts = continue_prompts(
        decoder, visual, prompts_of(3), max_new_tokens=37, end=never, num_beams=beams
    )
    assert max(map(len, texts)) == 37


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_new_tokens": 0}, r"max_new_tokens is 0, expected 1\.\.37"),
        ({"max_new_tokens": 38}, r"max_new_tokens is 38, expected 1\.\.37"),
        ({"num_beams": 0}, r"num_beams is 0, expected 1\.\.11"),
        ({"num_beams": 12}, r"num_beams is 12, expected 1\.\.11"),
        ({"end": 23}, "token 23 is not in the table of 23 tokens"),
        ({"prompt_ids": torch.full((6, 1), 99)}, "token 99 is not in the table of 23 tokens"),
        ({"prompt_ids": torch.zeros(5, 4, dtype=torch.long)}, r"each of 6 images, found \[5, 4\]"),
        ({"prompt_ids": torch.zeros(6, 0, dtype=torch.long)}, r"each of 6 images, found \[6, 0\]"),
    ],
)
def test_arguments_without_an_answer(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"prompt_ids": prompts_of(0), "max_new_tokens": 5, "end": LAST}
    with pytest.raises(ValueError, match=message):
        continue_prompts(make_decoder(0), make_visual(0), **{**arguments, **changed})


@pytest.mark.parametrize("beams", [1, 4])
def test_no_images_no_texts(beams: int) -> None:
    visual = torch.empty(0, 5, VISUAL_WIDTH)
    assert search(make_decoder(0), visual, beams, 1.0) == []


@pytest.mark.parametrize("beams", [1, 4])
def test_whole_model_over_the_vocabulary_of_gpt2(beams: int) -> None:
    """The published vocabulary; the encoder runs once, and beams share what they read."""
    model = initial_model(SIZES, seed=3)
    assert isinstance(model, CaptioningModel)
    generator = torch.Generator().manual_seed(4)
    for parameter in model.eval().parameters():
        if parameter.ndim > 1:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    model.decoder.token_embed.weight.data[40:END] *= 0.2  # few likely tokens, the end among them
    model.decoder.pos_embed.data *= 4
    images = torch.randn(8, 1, 32, 32, generator=generator) * 3
    calls = []
    model.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    found = generate(model, images, max_new_tokens=MAX_NEW, num_beams=beams)
    assert len(calls) == 1
    assert len({len(text) for text in found}) > 1
    with torch.no_grad():
        visual = model.vision_encoder(images)
    prompts = torch.full((8, 1), BEGIN)
    peer = make_peer(model.decoder)
    expected = peer_texts(peer, visual, prompts, max_new_tokens=MAX_NEW, beams=beams)
    assert found == expected


def test_beams_share_the_memory_of_their_image() -> None:
    decoder, visual = make_decoder(0), make_visual(0)
    cache = decoder.start(visual, 9)
    decoder.extend(begin(visual), cache)
    memory = cache.memory
    cache.fan_out(4)
    assert cache.memory is memory
    assert (memory.shape[2], cache.tokens.shape[2]) == (6, 24)


def test_gaps_are_filled_from_the_back() -> None:
    assert close_gaps([0, 1, 2]) == [0, 1, 2]
    assert close_gaps([1, 2, 5]) == [5, 1, 2]
    assert close_gaps([3, 4]) == [3, 4]
    assert close_gaps([]) == []


@pytest.mark.parametrize("beams", [1, 4])
def test_autocast_halves_the_cache(beams: int) -> None:
    decoder, visual = make_decoder(0), make_visual(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert decoder.start(visual, 9).memory.dtype == torch.bfloat16
        half = search(decoder, visual, beams, 1.0)
    assert any(
        mine == exact
        for mine, exact in zip(half, search(decoder, visual, beams, 1.0), strict=True)
        if mine
    )
