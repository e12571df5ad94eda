"""How much disk a run takes, and how many images it trains on: told before it starts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.commands import terminal
from lapvqa import storage
from lapvqa.errors import StorageFullError
from lapvqa.machine import load_machine
from lapvqa.params import Params, RecipeParams, load_params
from lapvqa.project import Project, is_demo
from lapvqa.schemas import STORED_SIZE

_STORED = STORED_SIZE**2  # bytes of an image
_SYSTEMS = 2
"""Encoders whose features are stored: the trained one and its untrained twin."""
_WORDS, _FLOAT, _HALF = 50257, 4, 2
_NO_IMAGE = (
    ".txt", ".csv", ".gz", ".json", ".jsonl", ".xml", ".html", ".pdf", ".md", ".xlsx", ".parquet",
)  # fmt: skip
_LOOK_SECONDS = 5.0
_READ = ("chexpert", "nih14", "vindr")
"""Data sets beside the archive whose images encoders read."""
_MS_CXR = 1162  # images with a phrase in the release


@dataclass(frozen=True)
class Use:
    """What takes disk: bytes at most, of which ``there`` are taken already.

    ``stage``: who writes it, an evaluation as "evaluate"; ``spare``: how to take less.
    """

    what: str
    stage: str
    most: float
    there: float
    spare: str = ""
    share: float = 1.0
    """Of ``most``, what is written for certain."""

    @property
    def more(self) -> float:
        """Bytes that are still to be written, at most."""
        return max(0.0, self.most - self.there)

    @property
    def surely(self) -> float:
        """Bytes that are still to be written, at least."""
        return max(0.0, self.share * self.most - self.there)


def disk_use(project: Project, params: Params) -> list[Use]:
    """Return what a run writes that is large; images, features, states of training, weights."""
    counts = {name: _images(project, name) or 0 for name in ("source", *_READ)}
    pretrain, work = params.pretrain, project.work_dir("pretrain")
    stored = project.work_dir("features")
    pixels = _taken(stored / "pixels")
    weights = _FLOAT * num_parameters(params)
    kept = pretrain.epochs // pretrain.save_every_epochs if pretrain.save_every_epochs else 0
    models = project.model_dir(pretrain.objective)
    return [
        Use("images", "ingest", counts["source"] * _STORED, _taken(project.images_dir)),
        # Of CheXpert frontal views alone are read.
        Use("decoded data sets", "evaluate", _STORED * sum(counts[name] for name in _READ), pixels,
            share=0.8),
        Use("features", "evaluate", _features(params, counts), _taken(stored) - pixels,
            "set token_grid to 8 in the recipes of evaluate", 0.5),  # not every image has a text
        # Weights, two moments, and the best weights so far; one more while the next is written.
        Use("states of the training", "pretrain",
            (pretrain.keep_checkpoints + 1) * 4 * weights, _taken(work),
            "set pretrain.keep_checkpoints to 2"),
        Use("weights", "pretrain", (3 + kept) * weights, _taken(models),
            "set pretrain.save_every_epochs to 0" if kept else ""),
    ]  # fmt: skip


def _use_of(project: Project, params: Params, stages: set[str]) -> list[Use]:
    """Return what those ``stages`` write."""
    names = {name.partition("@")[0] for name in stages} & {"ingest", "pretrain", "evaluate"}
    return [one for one in disk_use(project, params) if one.stage in names] if names else []


def lines(project: Project, params: Params, stages: set[str]) -> Iterator[str]:
    """Yield what a run of ``stages`` will take of the disk, the largest first, if it is much."""
    used = [one for one in _use_of(project, params, stages) if one.more > 0]
    if not used:
        return
    free = shutil.disk_usage(project.root).free
    total = sum(one.more for one in used)
    parts = ", ".join(
        f"{one.what} {terminal.size(one.more)}" for one in sorted(used, key=lambda one: -one.more)
    )
    yield f"disk: up to {terminal.size(total)} more ({parts}); {terminal.size(free)} free"


def require_disk(project: Project, stages: set[str]) -> None:
    """Raise StorageFullError where the stale ``stages`` cannot write what they have to."""
    used = _use_of(project, load_params(project.params), stages)
    needed, free = sum(one.surely for one in used), shutil.disk_usage(project.root).free
    if needed <= free:
        return
    largest = max(used, key=lambda one: one.surely)
    spare = largest.spare or "choose a smaller preset, or put the project on a larger disk"
    raise StorageFullError(
        f"the run would write at least {terminal.size(needed)}, of which {largest.what} "
        f"{terminal.size(largest.surely)}; {terminal.size(free)} are free",
        hint=f"free disk space (`dvc gc -w` drops results of older settings), or {spare}",
    )


def _features(params: Params, counts: Mapping[str, int]) -> float:
    """Return the bytes of stored tokens: of each data set's images, by each encoder, once."""
    sizes = params.pretrain.model
    sides = {"pooled": sizes.pooled_grid, "patches": sizes.image_size // sizes.patch_size}
    stores = {
        (name, kind, recipe.token_grid or sides[kind])
        for name, kind, recipe in _stored_tokens(params)
        # What a head reads but once is not stored.
        if recipe.encoder == "frozen" and not recipe.epochs == recipe.seeds == 1
    }
    # MS-CXR's images are the archive's own.
    read = {**counts, "ms_cxr": min(_MS_CXR, counts["source"])}
    whole = sum(read[name] * side**2 for name, _, side in stores)
    means = read["source"] + read["chexpert"] + read["nih14"]
    return _SYSTEMS * sizes.width * (_HALF * whole + _FLOAT * means)


def _stored_tokens(params: Params) -> Iterator[tuple[str, str, RecipeParams]]:
    """Yield whose images each head reads, as which tokens, and its recipe."""
    one = params.evaluate
    for section in (one.rrg, one.vqa, one.diffvqa):
        yield "source", "pooled", section.recipe
    yield "vindr", one.ad.tokens, one.ad.recipe
    yield "ms_cxr", one.pg.tokens, one.pg.recipe


def num_parameters(params: Params) -> int:
    """Return how many weights there are at most, whatever the objective: blocks and tables."""
    one = params.pretrain.model
    encoder = 12 * one.depth * one.width**2
    decoder = 16 * one.decoder_depth * one.decoder_width**2
    text = 12 * one.text_depth * one.text_width**2
    return encoder + decoder + text + _WORDS * max(one.decoder_width, one.text_width)


def training_pairs(project: Project) -> int | None:
    """Return how many images an epoch shows, as far as it is known: those of the split train."""
    if project.images.exists():
        import pyarrow.compute as pc

        table = storage.read_columns(project.images, ["split"])
        return int(pc.sum(pc.equal(table["split"], "train")).as_py() or 0)
    return _images(project, "source")


def tokens_cut(project: Project) -> float | None:
    """Return the share of tokens that the last tokenisation cut; None before one."""
    if not project.report_languages.exists():
        return None
    table = storage.read_columns(project.report_languages, ["num_tokens", "num_kept"])
    whole, kept = (sum(table[name].to_pylist()) for name in table.column_names)
    return 1 - kept / whole if whole else None


def reads_the_demo(project: Project) -> bool:
    """Tell whether the archive is what `lapvqa demo` drew."""
    params = load_params(project.params)
    folders = {"source": load_machine(project).folder("source", params.inventory, project)}
    return is_demo("source", folders)


def _images(project: Project, name: str) -> int | None:
    """Return how many image files an input folder has, at most; None for an absent one.

    As its inventory says; without one the folder is counted, for a few seconds at the longest.
    """
    listed = project.inventory(name)
    if listed.exists():
        paths = storage.read_columns(listed, ["path"])["path"].to_pylist()
        return sum(not path.lower().endswith(_NO_IMAGE) for path in paths)
    params = load_params(project.params)
    folder = load_machine(project).folder(name, params.inventory, project)
    return _counted(folder) if folder.is_dir() else None


def _counted(folder: Path) -> int:
    until, count = time.monotonic() + _LOOK_SECONDS, 0
    for _, _, files in os.walk(folder):
        count += sum(not name.lower().endswith(_NO_IMAGE) for name in files)
        if time.monotonic() > until:
            break
    return count


def _taken(folder: Path) -> float:
    return float(
        sum(
            (Path(place) / name).lstat().st_size
            for place, _, files in os.walk(folder)
            for name in files
        )
    )
