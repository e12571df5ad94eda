"""``lapvqa run --preset NAME``: sizes that fit a machine, and what a run with them will take.

Memory and FLOPs stand here so that a run need not simulate a step to name them; a test computes
them again. Times follow from an assumed speed, and say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flows.commands import cost, edit_settings, terminal
from flows.commands.edit_settings import Change
from lapvqa.errors import ConfigError, no_such
from lapvqa.machine import load_machine
from lapvqa.params import Params, read_yaml
from lapvqa.project import Project

AUTO = "auto"


@dataclass(frozen=True)
class Preset:
    """A file of params/ and what is changed beside it.

    ``memory``: bytes of the card that it is for, None for a CPU; ``peak``: bytes that a process
    takes of it, and ``flops``: of an image, forward and backward, with reports as long as they may
    be. ``speed``: FLOP/s assumed for the time, and ``assumed``: why, in words.
    """

    what: str
    file: str
    accumulate: int
    memory: float | None
    peak: float
    flops: float
    speed: float
    assumed: str

    def fits(self, memory: float) -> bool:
        """Tell whether a GPU of so many bytes holds it: a card's name says more than it has."""
        from lapvqa.pretrain.memory import usable_on_gpu

        return self.memory is not None and self.peak <= usable_on_gpu(memory)


_VIT_L = "ViT-L/14 at 384 px, the published sizes"
_SHARE = 0.3
"""Of a data sheet's FLOP/s; published trainings of a ViT-L reach 17 to 29 %."""


def _on_card(gigabytes: int, accumulate: int, peak: float, card: str, tera: float) -> Preset:
    return Preset(
        _VIT_L, "vitl14-384.yaml", accumulate, gigabytes * 1e9, peak, 1564e9,
        _SHARE * tera * 1e12, f"{_SHARE:.0%} of {tera:g} TFLOP/s, {card}'s data sheet, assumed",
    )  # fmt: skip


PRESETS = {
    "demo": Preset(
        "a toy at 64 px, for the demo's archive", "demo.yaml", 1, None, 0.72e9, 2.61e9,
        0.04e12, "0.04 TFLOP/s assumed, one core",
    ),
    "laptop": Preset(
        "a small ViT at 224 px, for a computer without a GPU", "laptop.yaml", 4, None, 2.33e9,
        33.4e9, 0.15e12, "0.15 TFLOP/s assumed, four cores",
    ),
    "gpu-24": _on_card(24, 8, 18.4e9, "an A10", 125),
    "gpu-40": _on_card(40, 4, 29.4e9, "an A100", 312),
    "gpu-80": _on_card(80, 2, 50.4e9, "an A100", 312),
    "gpu-141": _on_card(141, 1, 90.9e9, "an H200", 989.5),
}  # fmt: skip


def find(name: str) -> Preset:
    """Return a preset; ConfigError for a name that is none."""
    if name not in PRESETS:
        raise no_such("preset", name, [*PRESETS, AUTO])
    return PRESETS[name]


def choose(project: Project) -> str:
    """Return the name of the largest preset that this machine has the memory for.

    Without a GPU: the demo's for the demo's archive, else the laptop's.
    """
    from lapvqa.networks.device import choose_device

    device = choose_device(load_machine(project))
    if device.type == "cuda":
        import torch

        memory = torch.cuda.get_device_properties(device).total_memory
        fitting = [name for name, one in PRESETS.items() if one.fits(memory)]
        if not fitting:
            raise ConfigError(
                f"no preset fits this GPU, which has {terminal.size(memory)}",
                hint="lapvqa plan-memory says which micro-batch does; device: cpu with laptop",
            )
        return fitting[-1]
    return "demo" if cost.reads_the_demo(project) else "laptop"


def apply(project: Project, name: str) -> list[Change]:
    """Write a preset's values into params.yaml; return the changed ones."""
    return edit_settings.set_params(project, _values(project, find(name)))


def params_of(project: Project, name: str) -> Params:
    """Return what params.yaml would hold with a preset; nothing is written."""
    return edit_settings.with_values(project, _values(project, find(name)))


def _values(project: Project, preset: Preset) -> dict[str, Any]:
    values = read_yaml(project.root / "params" / preset.file)
    values["pretrain"]["accumulate"] = preset.accumulate
    return values


def describe(project: Project, name: str) -> Iterator[str]:
    """Yield lines that say what a run with a preset will take."""
    preset = find(name)
    params = params_of(project, name).pretrain
    rows = params.batch_size // preset.accumulate
    where = f"of a GPU with {terminal.size(preset.memory)}" if preset.memory else "of RAM"
    yield f"preset {name}: {preset.what}"
    yield (
        f"  memory: {terminal.size(preset.peak)} {where}, micro-batches of {rows} "
        "(computed; `lapvqa plan-memory`)"
    )
    pairs = cost.training_pairs(project)
    if pairs is None:
        yield "  time: not known before the archive is read"
    else:
        seconds = pairs * params.epochs * preset.flops / preset.speed
        yield (
            f"  time: pretraining about {terminal.span(seconds)} for {pairs} images x "
            f"{params.epochs} epochs ({preset.flops / 1e12:.3g} TFLOP each, {preset.assumed}; "
            "not measured)"
        )


def unfit(project: Project, params: Params) -> Iterator[str]:
    """Yield what speaks against a run of an archive of one's own with the demo's sizes."""
    demo = project.root / "params" / PRESETS["demo"].file
    if cost.reads_the_demo(project) or not demo.is_file():
        return
    if params.pretrain.model.model_dump() != read_yaml(demo)["pretrain"]["model"]:
        return
    size, longest = params.pretrain.model.image_size, params.tokens.max_length
    cut = cost.tokens_cut(project)
    lost = (
        "longer reports are cut" if cut is None else f"{cut:.0%} of all tokens were cut last time"
    )
    yield (
        f"params.yaml has the demo's sizes: this trains a toy that sees films at {size} px, and "
        f"reads {longest} tokens of a report ({lost})"
    )
    yield f"  for a real model: lapvqa run --preset {AUTO}, or one of {', '.join(PRESETS)}"
