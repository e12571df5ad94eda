"""transformers' encoder-decoder with the weights of our decoder: the peer of test and benchmark."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, VisionEncoderDecoderModel, ViTConfig, ViTModel
from transformers.modeling_outputs import BaseModelOutput

from lapvqa.networks.decoder import CaptionDecoder


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
            transposed = name.endswith(
                (".c_attn.weight", ".q_attn.weight", ".c_proj.weight", ".c_fc.weight")
            )
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
    peer: VisionEncoderDecoderModel,
    visual: Tensor,
    prompts: Tensor,
    *,
    max_new_tokens: int,
    beams: int = 1,
    penalty: float = 1.0,
) -> list[list[int]]:
    """Return what transformers writes after the prompts, cut at the first end."""
    written = peer.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=visual), decoder_input_ids=prompts,
        max_new_tokens=max_new_tokens, num_beams=beams, length_penalty=penalty,
        early_stopping=False, do_sample=False, use_cache=True,
    )  # fmt: skip
    end = peer.generation_config.eos_token_id
    texts = written[:, prompts.shape[1] :].tolist()
    return [text[: text.index(end)] if end in text else text for text in texts]
