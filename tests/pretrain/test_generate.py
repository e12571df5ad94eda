"""Captions are those of transformers' generate() on the same weights, whatever the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, VisionEncoderDecoderModel, ViTConfig, ViTModel
from transformers.modeling_outputs import BaseModelOutput

from lapvqa.params import ModelParams
from lapvqa.pretrain.decoder import CaptionDecoder
from lapvqa.pretrain.generate import BEGIN, END, continue_prompts, generate
from lapvqa.pretrain.model import CaptioningModel, initial_model

VOCABULARY, LAST, VISUAL_WIDTH, MAX_NEW = 61, 60, 24, 24
SEARCHES = [(1, 1.0)] + [(beams, penalty) for beams in (2, 4) for penalty in (0.6, 1.0, 2.0)]


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
        decoder.token_embed.weight.data[LAST] *= 1.4
    return decoder.eval()


def make_visual(seed: int, batch: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(batch, 1, VISUAL_WIDTH, generator=generator)
    return shared + torch.randn(batch, 5, VISUAL_WIDTH, generator=generator)


def make_peer(decoder: CaptionDecoder) -> VisionEncoderDecoderModel:
    """Return transformers' model of the same weights; its encoder is not used."""
    visual_width, end = decoder.visual_proj.in_features, len(decoder.token_embed.weight) - 1
    config = GPT2Config(
        vocab_size=end + 1, n_positions=decoder.max_length, n_embd=decoder.width,
        n_layer=len(decoder.blocks), n_head=decoder.heads, activation_function="gelu",
        layer_norm_epsilon=1e-6, add_cross_attention=True, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=end, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    encoder = ViTModel(
        ViTConfig(hidden_size=visual_width, num_hidden_layers=1, num_attention_heads=1)
    )
    peer = VisionEncoderDecoderModel(encoder=encoder, decoder=GPT2LMHeadModel(config)).eval()
    ours, weights = decoder.state_dict(), {}
    for name, value in peer.state_dict().items():
        if not name.startswith("encoder."):
            found = ours[our_name(name)]
            transposed = name.endswith((".c_attn.weight", ".q_attn.weight", ".c_proj.weight", ".c_fc.weight"))
            weights[name] = found.T if transposed else found
            assert weights[name].shape == value.shape, name
    assert set(map(our_name, weights)) == set(ours), "some of our weights went nowhere"
    peer.load_state_dict(weights, strict=False)
    peer.generation_config.update(
        decoder_start_token_id=end, bos_token_id=end, eos_token_id=end, pad_token_id=end
    )
    return peer


NAMES = {
    "decoder.lm_head.weight": "token_embed.weight",
    "decoder.transformer.wte.weight": "token_embed.weight",
    "decoder.transformer.wpe.weight": "pos_embed",
    "decoder.transformer.ln_f": "norm",
    "decoder.transformer.h.": "blocks.",
    "enc_to_dec_proj": "visual_proj",
    "ln_1": "norm1",
    "ln_cross_attn": "norm_cross",
    "ln_2": "norm2",
    "crossattention.q_attn": "cross.q",
    "crossattention.c_attn": "cross.kv",
    "crossattention.c_proj": "cross.proj",
    "attn.c_attn": "attn.qkv",
    "attn.c_proj": "attn.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def our_name(name: str) -> str:
    """Return our name of transformers' parameter."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


@torch.no_grad()
def peer_texts(
    peer: VisionEncoderDecoderModel, visual: Tensor, prompts: Tensor, *, beams: int, penalty: float
) -> list[list[int]]:
    """Return what transformers writes after the prompts, cut at the first end."""
    written = peer.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=visual), decoder_input_ids=prompts,
        max_new_tokens=MAX_NEW, num_beams=beams, length_penalty=penalty, early_stopping=False,
        do_sample=False, use_cache=True,
    )  # fmt: skip
    end = peer.generation_config.eos_token_id
    texts = written[:, prompts.shape[1] :].tolist()
    return [text[: text.index(end)] if end in text else text for text in texts]


def begin(visual: Tensor) -> Tensor:
    return torch.full((len(visual), 1), LAST)


def ours(decoder: CaptionDecoder, visual: Tensor, prompts: Tensor, **how: float) -> list[list[int]]:
    return continue_prompts(
        decoder, visual, prompts, max_new_tokens=MAX_NEW, end=LAST, **how  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module", params=range(12))
def seed(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.mark.parametrize(("beams", "penalty"), SEARCHES)
def test_tokens_are_those_of_transformers(seed: int, beams: int, penalty: float) -> None:
    decoder, visual = make_decoder(seed), make_visual(seed)
    peer = make_peer(decoder)
    for prompts in (begin(visual), prompts_of(seed)):
        expected = peer_texts(peer, visual, prompts, beams=beams, penalty=penalty)
        found = ours(decoder, visual, prompts, num_beams=beams, length_penalty=penalty)
        assert found == expected


def prompts_of(seed: int) -> Tensor:
    """Return six prompts of four tokens; transformers wants the first to be the beginning."""
    prompts = torch.randint(0, LAST, (6, 4), generator=torch.Generator().manual_seed(seed))
    prompts[:, 0] = LAST
    return prompts
