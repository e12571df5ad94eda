"""Captions by greedy and beam search, beside transformers' generate() on the same weights.

    python benchmarks/bench_generate.py

The decoder of the published size (6 layers of width 512, 50257 tokens) writes up to 48 tokens from
visual tokens of width 1024; the encoder is left out on both sides. Captions end at different
lengths, about half of the maximum on average. Every token is compared first. One
thread; the time spent on the processor is kept too, which neighbours disturb less.

Peers: ``transformers``, as its generate() is called; ``transformers_projected``, which is spared
the projection of the visual tokens to the decoder's width that it repeats at every token.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from lapvqa.networks.decoder import CaptionDecoder
from lapvqa.networks.generation import BEGIN, END, continue_prompts

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "pretrain"))

from transformers_decoder import make_peer, peer_texts  # noqa: E402 - the tests' second opinion

MAX_NEW_TOKENS, VISUAL_WIDTH, ALTERNATIONS = 48, 1024, 7
RESULT = HERE / "results" / "generate-cpu.json"


@dataclass(frozen=True)
class Case:
    """One batch of images and one search."""

    batch: int
    visual_tokens: int
    beams: int = 1

    @property
    def name(self) -> str:
        search = "greedy" if self.beams == 1 else f"beams_{self.beams}"
        return f"{search}_batch_{self.batch}_visual_{self.visual_tokens}"


CASES = (Case(8, 729), Case(16, 256), Case(4, 256, beams=4))


def make_decoder(seed: int = 0) -> CaptionDecoder:
    """Return a decoder of random weights whose texts vary with the image and end in time.

    The end's direction grows with the place, so it wins at a place that depends on the text.
    """
    torch.manual_seed(seed)
    decoder = CaptionDecoder(visual_width=VISUAL_WIDTH, max_length=64).eval()
    with torch.no_grad():
        for parameter in decoder.blocks.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        table, places = decoder.token_embed.weight.mul_(10), decoder.pos_embed.mul_(30)
        places.add_(torch.arange(len(places)).unsqueeze(1) * table[END] * 1.1)
    return decoder


def make_visual(case: Case, seed: int = 0) -> Tensor:
    """Return visual tokens [B, M, 1024] that differ from image to image."""
    generator = torch.Generator().manual_seed(seed)
    of_image = torch.randn(case.batch, 1, VISUAL_WIDTH, generator=generator)
    shape = (case.batch, case.visual_tokens, VISUAL_WIDTH)
    return of_image + torch.randn(shape, generator=generator)


def measure(case: Case, decoder: CaptionDecoder) -> dict[str, object]:
    """Compare the tokens, alternate, return figures."""
    visual, begin = make_visual(case), torch.full((case.batch, 1), BEGIN)
    peer, projected_peer = make_peer(decoder), make_peer(decoder)
    projected_peer.enc_to_dec_proj = nn.Identity()
    with torch.no_grad():
        projected = decoder.visual_proj(visual)
    contenders: dict[str, Callable[[], list[list[int]]]] = {
        "ours": lambda: continue_prompts(
            decoder, visual, begin, max_new_tokens=MAX_NEW_TOKENS, num_beams=case.beams
        ),
        "transformers": lambda: peer_texts(
            peer, visual, begin, max_new_tokens=MAX_NEW_TOKENS, beams=case.beams
        ),
        "transformers_projected": lambda: peer_texts(
            projected_peer, projected, begin, max_new_tokens=MAX_NEW_TOKENS, beams=case.beams
        ),
    }
    texts = {name: write() for name, write in contenders.items()}
    assert all(one == texts["ours"] for one in texts.values()), f"{case.name}: tokens differ"
    times: dict[str, list[float]] = {name: [] for name in contenders}
    cpu_times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ALTERNATIONS):
        for name, write in contenders.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            write()
            times[name].append(time.perf_counter() - started)
            cpu_times[name].append(time.process_time() - cpu_started)
    lengths = sorted(map(len, texts["ours"]))
    assert len(set(lengths)) > case.batch // 4, f"{case.name}: lengths are not ragged"
    return {
        "identical_tokens": True,
        "lengths": lengths,
        "mean_length": round(statistics.mean(lengths), 1),
        "median_s": {name: round(statistics.median(all_), 3) for name, all_ in times.items()},
        "tokens_per_s": {
            name: round(sum(lengths) / statistics.median(all_), 1) for name, all_ in times.items()
        },
        "times_as_fast_median_min_max": _ratios_to_ours(times),
        "times_as_little_cpu_median_min_max": _ratios_to_ours(cpu_times),
    }


def main() -> None:
    """Measure every case, print, keep."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    decoder, load_before = make_decoder(), os.getloadavg()[0]
    cases = {case.name: measure(case, decoder) for case in CASES}
    result = {
        "decoder": "6 layers of width 512, 8 heads, 50257 tokens, float32",
        "max_new_tokens": MAX_NEW_TOKENS,
        "visual_width": VISUAL_WIDTH,
        "threads": 1,
        "alternations": ALTERNATIONS,
        "load_average": [load_before, os.getloadavg()[0]],
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "cases": cases,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _ratios_to_ours(times: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return each peer's median, lowest and highest ratio to the turn of ours beside it."""
    ratios = {
        name: [peer / own for own, peer in zip(times["ours"], all_, strict=True)]
        for name, all_ in times.items()
        if name != "ours"
    }
    return {
        name: [round(one, 2) for one in (statistics.median(all_), min(all_), max(all_))]
        for name, all_ in ratios.items()
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    main()
