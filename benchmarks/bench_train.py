"""A training step on the CPU, beside transformers' VisionEncoderDecoderModel of the same weights.

    python benchmarks/bench_train.py            # about five minutes
    python benchmarks/bench_train.py --compile  # also with torch.compile, block by block

Reports of up to 256 tokens fill 37 % of a batch on average, as radiology reports do. A step is
forward, backward and AdamW, float32, dropout 0, one thread. All contenders start from the same
weights; their losses of the first three steps are compared first.

ours             lapvqa's objective: padding left out before the head, batch trimmed to its longest
ours_cut         the same as the pipeline trains, with the vocabulary cut to the tokens that occur
transformers     padded to 256 tokens, SDPA, torch.optim.AdamW as it comes
transformers_trimmed   the same, padded to the longest report of the batch only
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, VisionEncoderDecoderModel, ViTConfig, ViTModel
from transformers.modeling_outputs import BaseModelOutput

from lapvqa.images.report_pairs import IGNORED, pad_tokens
from lapvqa.networks.vocabulary import CutVocabulary
from lapvqa.params import ModelParams, PretrainParams
from lapvqa.pretrain.distributed import World
from lapvqa.pretrain.inputs import Inputs
from lapvqa.pretrain.model import CaptioningModel, initial_model
from lapvqa.pretrain.objectives.captioning import Captioning

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "pretrain"))

from transformers_decoder import make_peer  # noqa: E402 - the tests' second opinion
from transformers_vit import to_transformers  # noqa: E402

END, LENGTH, FILL, BATCH, LEARNING_RATE = 50256, 256, 0.37, 4, 1e-4
ALTERNATIONS, COMPARED, TOLERANCE = 11, 3, 1e-4
CPU = torch.device("cpu")
SIZES = ModelParams(
    image_size=224, patch_size=14, width=384, depth=6, heads=6, pooled_grid=16,
    decoder_width=256, decoder_depth=3, decoder_heads=4,
)  # fmt: skip
RESULT = HERE / "results" / "train-cpu.json"

Step = Callable[[Tensor, list[np.ndarray]], float]


def make_reports(count: int, seed: int = 0) -> list[np.ndarray]:
    """Return reports of ids by Zipf's law, of lengths around FILL of LENGTH."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(END)[:6000]
    weights = 1 / np.arange(2, len(ids) + 2)
    lengths = rng.gamma(4.0, 1.0, count)
    measured = slice(COMPARED * BATCH, (COMPARED + ALTERNATIONS) * BATCH)
    lengths *= FILL * LENGTH / lengths[measured].mean()
    lengths = np.clip(lengths, 8, LENGTH - 1).astype(int)
    draws = (rng.choice(ids, length, p=weights / weights.sum()) for length in lengths)
    return [np.array([END, *words, END], np.uint16) for words in draws]


def our_step(model: CaptioningModel, vocabulary: CutVocabulary | None) -> Step:
    """Return our step; without a vocabulary, the head has all 50257 rows."""
    log_count = torch.zeros(END + 1) if vocabulary is None else vocabulary.log_count
    params = PretrainParams(model=SIZES, epochs=1, batch_size=BATCH, lr=LEARNING_RATE)
    objective = Captioning(model, params, log_count, World(), "ddp", CPU)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    number = (lambda ids: ids) if vocabulary is None else vocabulary.number

    def step(images: Tensor, reports: list[np.ndarray]) -> float:
        inputs, targets = pad_tokens(reports)
        valid = targets != IGNORED
        places = valid.flatten().nonzero().squeeze(1)
        batch = Inputs(
            images=images, tokens=number(inputs), valid=valid, places=places,
            targets=number(targets.flatten()[places]), groups=torch.arange(len(images)), keep=None,
        )  # fmt: skip
        loss = objective.backward([batch], len(places))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def peer_model(model: CaptioningModel) -> VisionEncoderDecoderModel:
    """Return transformers' model with our weights, without the pooler that nothing uses."""
    config = ViTConfig(
        hidden_size=SIZES.width, num_hidden_layers=SIZES.depth, num_attention_heads=SIZES.heads,
        intermediate_size=4 * SIZES.width, image_size=SIZES.image_size,
        patch_size=SIZES.patch_size, layer_norm_eps=1e-6, hidden_act="gelu",
    )  # fmt: skip
    encoder = ViTModel(config, add_pooling_layer=False)
    encoder.load_state_dict(to_transformers(model.vision_encoder.state_dict()))
    text = make_peer(model.decoder)
    decoder: GPT2LMHeadModel = text.decoder
    peer = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    peer.enc_to_dec_proj.load_state_dict(text.enc_to_dec_proj.state_dict())
    peer.config.decoder_start_token_id = peer.config.pad_token_id = END
    return peer.train()


def peer_step(peer: VisionEncoderDecoderModel, *, padded_to: int | None) -> Step:
    """Return the peer's step; it attends to the patches alone, as ours does."""
    optimizer = torch.optim.AdamW(peer.parameters(), lr=LEARNING_RATE, weight_decay=0.01)

    def step(images: Tensor, reports: list[np.ndarray]) -> float:
        inputs, targets = pad_tokens(reports)
        if padded_to is not None:
            room = (0, padded_to - inputs.shape[1])
            inputs = nn.functional.pad(inputs, room, value=END)
            targets = nn.functional.pad(targets, room, value=IGNORED)
        visual = peer.encoder(pixel_values=images.expand(-1, 3, -1, -1)).last_hidden_state[:, 1:]
        loss = peer(
            encoder_outputs=BaseModelOutput(last_hidden_state=visual),
            decoder_input_ids=inputs, labels=targets,
        ).loss  # fmt: skip
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def contenders(vocabulary: CutVocabulary, *, compiled: bool) -> dict[str, Step]:
    """Return every contender's step, all from the same weights."""

    def start() -> CaptioningModel:
        model = cast("CaptioningModel", initial_model(SIZES, seed=0))
        cut = initial_model(SIZES, seed=0)
        vocabulary.cut(cut)
        # Rows of tokens that never occur start equal, as the pipeline has them.
        model.load_state_dict(vocabulary.restore(cut, cut.state_dict()))
        return model.train()

    cut = start()
    vocabulary.cut(cut)
    peers = {name: peer_model(start()) for name in ("transformers", "transformers_trimmed")}
    steps = {
        "ours": our_step(start(), None),
        "ours_cut": our_step(cut, vocabulary),
        "transformers": peer_step(peers["transformers"], padded_to=LENGTH),
        "transformers_trimmed": peer_step(peers["transformers_trimmed"], padded_to=None),
    }
    if compiled:
        model = start()
        for module in model.modules():
            if isinstance(module, nn.ModuleList):
                for block in module:
                    block.compile(dynamic=True)
        steps["ours_compiled"] = our_step(model, None)
    return steps


def main() -> None:
    """Compare losses, alternate, print, keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--compile", action="store_true")
    compiled = parser.parse_args().compile
    torch.set_num_threads(1)
    corpus = make_reports(2000)
    vocabulary = CutVocabulary(corpus)
    steps = contenders(vocabulary, compiled=compiled)
    times: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    before = os.getloadavg()[0]
    for turn in range(COMPARED + ALTERNATIONS):
        reports = corpus[turn * BATCH : (turn + 1) * BATCH]
        generator = torch.Generator().manual_seed(turn)
        images = torch.randn(BATCH, 1, SIZES.image_size, SIZES.image_size, generator=generator)
        for name, step in steps.items():
            started = time.perf_counter()
            losses[name].append(step(images, reports))
            times[name].append(time.perf_counter() - started)
    differences = {
        name: max(abs(a - b) for a, b in zip(found, losses["transformers"], strict=True))
        for name, found in losses.items()
    }
    first = {
        name: max(
            abs(a - b)
            for a, b in zip(found[:COMPARED], losses["transformers"][:COMPARED], strict=True)
        )
        for name, found in losses.items()
    }
    assert max(first.values()) <= TOLERANCE, first
    measured = {name: all_[COMPARED:] for name, all_ in times.items()}
    used = [len(one) - 1 for one in corpus[COMPARED * BATCH : (COMPARED + ALTERNATIONS) * BATCH]]
    result = {
        "model": SIZES.model_dump(),
        "batch": BATCH,
        "length": LENGTH,
        "fill": round(sum(used) / len(used) / LENGTH, 3),
        "vocabulary_that_occurs": len(vocabulary.kept),
        "largest_difference_of_loss_first_3_steps": first,
        "largest_difference_of_loss_10_steps": differences,
        "alternations": ALTERNATIONS,
        "load_average": [before, os.getloadavg()[0]],
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
        "median_s": {name: round(statistics.median(all_), 3) for name, all_ in measured.items()},
        "times_as_fast_median_min_max": {
            f"{own} than {peer}": _ratios(measured[own], measured[peer])
            for own in measured
            if own.startswith("ours")
            for peer in ("transformers", "transformers_trimmed")
        },
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _ratios(own: list[float], peer: list[float]) -> list[float]:
    ratios = [b / a for a, b in zip(own, peer, strict=True)]
    return [round(one, 2) for one in (statistics.median(ratios), min(ratios), max(ratios))]


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    main()
