"""``lapvqa plan-memory``: what pretraining needs, and the largest micro-batch that fits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from flows.commands import edit_settings, presets, terminal
from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.machine import Machine, load_machine
from lapvqa.params import Params, load_params
from lapvqa.project import Project
from lapvqa.schemas import TOKENS

if TYPE_CHECKING:
    from lapvqa.pretrain.allocations import Workload
    from lapvqa.pretrain.memory import Forecast

_UNITS = {"B": 1.0, "MB": 1e6, "GB": 1e9, "TB": 1e12, "MIB": 2**20, "GIB": 2**30}
_ORDER = (
    "weights", "weights in bf16", "gradients", "gradients on their way", "optimizer states",
    "encoder", "decoder", "head and loss", "logits of other processes", "backward pass",
    "forward pass", "workspace", "inputs",
)  # fmt: skip
_NAMES = {
    "encoder": "activations of the encoder",
    "decoder": "activations of the text side",
    "backward pass": "in flight in the backward pass",
    "forward pass": "in flight in the forward pass",
    "gradients on their way": "gradients on their way to other processes",
}


def execute(
    project: Project, *, params_file: Path | None, memory: str | None, preset: str | None = None
) -> int:
    """Print the plan for params.yaml, or with ``params_file`` or a preset merged into it."""
    room = None if memory is None else _parse(memory)
    current = load_params(project.params)
    params = _chosen(project, params_file, preset) or current
    machine = load_machine(project)
    from lapvqa.pretrain.memory import (
        forecast,
        largest_that_fit,
        usable_on_gpu,
        without_fragmentation,
    )

    on_gpu, here, name = _device(machine)
    if room is not None:
        on_gpu, name = True, f"a card of {memory}"
    work, source = _work(project, params, current, machine, on_gpu)
    chosen = params.pretrain
    both = [
        forecast(chosen.model_copy(update={"checkpoint_activations": cut}), work)
        for cut in (False, True)
    ]
    _print_parts(params, work, source, both)
    free = usable_on_gpu(room or here) if on_gpu else without_fragmentation(here)
    if free <= 0:
        raise ConfigError(
            f"expected more memory than a GPU's context takes, found {terminal.size(room or here)}",
            hint="such as --memory 80GB",
        )
    _print_fitting(largest_that_fit(chosen, work, free), free, name)
    return 0


def _chosen(project: Project, params_file: Path | None, preset: str | None) -> Params | None:
    if params_file is not None and preset is not None:
        raise ConfigError("expected --params or --preset, found both", hint="leave one out")
    if preset is None:
        return None if params_file is None else edit_settings.merged_params(project, params_file)
    name = presets.choose(project) if preset == presets.AUTO else preset
    return presets.params_of(project, name)


def _parse(memory: str) -> float:
    found = re.fullmatch(r"([0-9.]+) *([A-Za-z]*)", memory.strip())
    unit = found.group(2).upper() if found else ""
    if not found or unit not in _UNITS or found.group(1).count(".") > 1:
        raise ConfigError(
            f"expected a size with its unit, found {memory!r}", hint="such as --memory 80GB"
        )
    return float(found.group(1)) * _UNITS[unit]


def _device(machine: Machine) -> tuple[bool, float, str]:
    """Return whether this machine's device is a GPU, its memory, and its name."""
    import torch

    from lapvqa.networks.device import choose_device
    from lapvqa.pretrain.memory import free_on_host

    device = choose_device(machine)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return True, properties.total_memory, properties.name
    return False, free_on_host(), "this machine, now"


def _work(
    project: Project, params: Params, current: Params, machine: Machine, on_gpu: bool
) -> tuple[Workload, str]:
    """Return what the tokens ask for; where there are none yet, the most they can."""
    from lapvqa.pretrain.allocations import Workload

    processes = machine.training.processes * machine.training.nodes
    if params.tokens != current.tokens or not list(project.tokens_dir.glob("*.parquet")):
        longest = params.tokens.max_length - 1
        return Workload(
            longest, longest, processes=processes, on_gpu=on_gpu
        ), "the most there can be"
    import pyarrow.compute as pc

    table = storage.read_table(project.tokens_dir, TOKENS, made_by="tokens")
    reports = table.filter(pc.field("split") == "train")["token_ids"]
    lengths, ids = pc.list_value_length(reports), pc.list_flatten(reports)
    work = Workload(
        pc.max(lengths).as_py() - 1, pc.mean(lengths).as_py() - 1,
        pc.count_distinct(ids).as_py() + 1, processes, on_gpu,
    )  # fmt: skip
    return work, "as data/tokens has them"


def _print_parts(params: Params, work: Workload, source: str, both: list[Forecast]) -> None:
    console, chosen = terminal.console(), params.pretrain
    where = "a GPU, bfloat16 autocast" if work.on_gpu else "a CPU, float32"
    where += ", blocks compiled" if chosen.compile else ""
    console.print(
        f"{chosen.objective} on {where}: a batch of {chosen.batch_size} / accumulate "
        f"{chosen.accumulate} / {work.processes} process{'es' if work.processes > 1 else ''} = "
        f"micro-batches of {both[0].rows} images; reports of {work.length} tokens, "
        f"{work.targets:.0f} on average, a table of {work.vocabulary}: {source}",
        soft_wrap=True,
    )
    table = Table("at the peak, per process", box=None, pad_edge=False)
    for one in both:
        now = ", as set" if one.checkpointing == chosen.checkpoint_activations else ""
        title = f"checkpoint_activations {str(one.checkpointing).lower()}{now}"
        table.add_column(title, justify="right")
    names = [*_ORDER, *sorted({name for one in both for name in one.parts} - set(_ORDER))]
    for name in names:
        sizes = [one.parts.get(name, 0) for one in both]
        if any(sizes):
            table.add_row(_NAMES.get(name, name), *map(terminal.size, sizes))
    table.add_row("peak", *(f"{terminal.size(one.peak)}" for one in both), style="bold")
    table.add_row("comes in", *(one.moment for one in both))
    console.print(table)


def _print_fitting(found: list[Forecast], free: float, name: str) -> None:
    console = terminal.console()
    console.print(f"{name}: {terminal.size(free)} for tensors", markup=False, soft_wrap=True)
    for one in found:
        console.print(
            f"  checkpoint_activations {str(one.checkpointing).lower()}: at most micro-batches of "
            f"{one.rows}, pretrain.accumulate {one.accumulate}: {terminal.size(one.peak)}",
            soft_wrap=True,
        )
    if not found:
        console.print("  not even one image at a time fits, checkpoint_activations or not")
    console.print(
        "found by a step on tensors without memory; what FSDP spares is not in it",
        soft_wrap=True,
    )
