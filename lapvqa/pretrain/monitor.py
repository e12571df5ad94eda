"""How fast training is, and how fast it could be.

FLOPs as in ``flops``; the backward pass counts twice the forward pass, recomputation does not count
(model FLOPs).
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from lapvqa.params import PretrainParams
from lapvqa.pretrain.flops import encoder_flops, patch_flops, visual_tokens
from lapvqa.pretrain.objectives.table import OBJECTIVES

DATA_SHEET = {"H100": 989.5e12, "H200": 989.5e12, "A100": 312e12}
"""Dense bf16 FLOP/s by the makers' data sheets, which papers divide by."""


def flops_per_step(
    params: PretrainParams, *, images: int, positions: int, targets: int, vocabulary: int
) -> float:
    """Return the FLOPs of a step over ``images``, forward and backward.

    ``positions`` is all their tokens with padding, ``targets`` those that reach the head.
    """
    text = OBJECTIVES[params.objective].text_flops(
        params.model, length=positions / images, memory=visual_tokens(params),
        targets=targets / images, vocabulary=vocabulary,
    )  # fmt: skip
    # No gradient of pixels is taken: one product backward instead of two.
    return images * (2.0 * patch_flops(params.model) + 3.0 * (encoder_flops(params) + text))


def measured_peak(device: torch.device, *, repeats: int = 5) -> float:
    """Return the FLOP/s of large products here: bf16 on a GPU, float32 on a CPU.

    Of random numbers, as a training's are: of constant ones few transistors switch, and a GPU that
    its power limits clocks higher than any training sees. Drawn by a generator of its own.
    """
    on_gpu = device.type == "cuda"
    size, dtype = (8192, torch.bfloat16) if on_gpu else (768, torch.float32)
    generator = torch.Generator(device).manual_seed(0)
    left, right = torch.randn(2, size, size, device=device, dtype=dtype, generator=generator)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        product = left @ right
        if on_gpu:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * len(product) ** 3 / best


def data_sheet_peak(device: torch.device) -> float | None:
    """Return the data sheet's bf16 FLOP/s of a known GPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in DATA_SHEET.items() if known in name), None)


def peak_memory(device: torch.device) -> int:
    """Return the peak of bytes in use so far: torch's on a GPU, the process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage: a process inherits the peak of the one that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


class Meter:
    """Turns the time and size of a step into metrics, each with its denominator."""

    def __init__(self, params: PretrainParams, device: torch.device, *, vocabulary: int) -> None:
        self.params, self.device, self.vocabulary = params, device, vocabulary
        self.peak = measured_peak(device)
        self.data_sheet = data_sheet_peak(device)

    def facts(self) -> dict[str, str]:
        """Return the denominators of MFU."""
        peaks = {
            "peak_measured": f"{self.peak / 1e12:.3f} TFLOP/s, large products on {self.device}"
        }
        if self.data_sheet:
            peaks["peak_data_sheet"] = f"{self.data_sheet / 1e12:.1f} TFLOP/s, dense bf16"
        return peaks

    def measure(
        self,
        *,
        seconds: float,
        waited: float,
        images: int,
        positions: int,
        targets: int,
        processes: int = 1,
    ) -> dict[str, float]:
        """Return the metrics of a step that this process took, one of several ``processes``.

        Images and tokens per second are those of all, MFU and memory those of one device.
        """
        rate = flops_per_step(
            self.params, images=images, positions=positions, targets=targets,
            vocabulary=self.vocabulary,
        ) / seconds  # fmt: skip
        # What a step reaches can be reached: others were at work while the products were timed.
        self.peak = max(self.peak, rate)
        metrics = {
            "images_per_s": processes * images / seconds,
            "tokens_per_s": processes * targets / seconds,
            "mfu": rate / self.peak,
            "data_wait": waited / seconds,
            "peak_memory_gb": peak_memory(self.device) / 1e9,
        }
        if self.data_sheet:
            metrics["mfu_data_sheet"] = rate / self.data_sheet
        return metrics

    def line(self, metrics: dict[str, float]) -> str:
        """Return the metrics as a line for a person."""
        return (
            f"{metrics['images_per_s']:.0f} images/s, {metrics['tokens_per_s']:.0f} tokens/s, "
            f"MFU {metrics['mfu']:.0%} of {self.peak / 1e12:.3g} TFLOP/s measured, "
            f"data wait {metrics['data_wait']:.1%}, peak memory {metrics['peak_memory_gb']:.1f} GB"
        )
