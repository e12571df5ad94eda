"""Write the whole demo archive: every dataset's copy, whole or marked incomplete."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2

from lapvqa import runtime, storage
from lapvqa.errors import ConfigError, SourceError
from lapvqa.project import DEMO_MARK, DRAWN_MARK
from lapvqa.synth import (
    chexpert_copy,
    diff_vqa_copy,
    ext_vqa_copy,
    mimic_copy,
    ms_cxr_copy,
    nih14_copy,
    vindr_copy,
)
from lapvqa.synth.shots import MTIME, Shot, TakenImage, take

_VERSION = 2
"""Says that the folder is ours to rebuild; also the lock."""
_FOLDERS = (
    mimic_copy.FOLDER,
    chexpert_copy.FOLDER,
    nih14_copy.FOLDER,
    vindr_copy.FOLDER,
    ms_cxr_copy.FOLDER,
    diff_vqa_copy.FOLDER,
    ext_vqa_copy.FOLDER,
)
_CHUNK = 8
_stop: Event | None = None
"""In a worker: set once nobody waits for its images."""

Progress = Callable[[int, int], None]


def write_demo(
    root: Path,
    *,
    patients: int = 300,
    studies: int = 800,
    seed: int = 0,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> dict[str, int]:
    """Write the demo archive under ``root``; return the number of images of every dataset.

    ``patients`` and ``studies`` size the MIMIC-CXR copy; the others grow with it (at 800 studies
    600 images each of CheXpert and NIH, 220 of VinDr-CXR). ``mimic-cxr/DEMO.json`` is written last:
    an archive that has it with equal parameters is left alone, any other is rebuilt.
    ``on_progress`` gets the number of images done and of all.

    Raises ConfigError for impossible sizes and SourceError if ``root`` holds datasets that this
    function did not write.
    """
    if not patients <= studies <= mimic_copy.MOST_STUDIES * patients or patients < 10:
        raise ConfigError(
            f"cannot share {studies} studies among {patients} patients",
            hint=f"at least 10 patients with 1 to {mimic_copy.MOST_STUDIES} studies each",
        )
    manifest = root / mimic_copy.FOLDER / DEMO_MARK
    facts = {
        "generator": "lapvqa.synth",
        "version": _VERSION,
        "seed": seed,
        "patients": patients,
        "studies": studies,
    }
    _claim(root)
    with storage.lock(root / DRAWN_MARK, what="the making of the demo archive"):
        plans = _Plans(seed, patients, studies)
        if not _complete(manifest, facts):
            _clear(root, manifest)
            plans.write(root, workers, on_progress)
            storage.write_json(manifest, facts)
            os.utime(manifest, (MTIME, MTIME))
    return plans.counts()


class _Plans:
    """The images to draw, dataset by dataset."""

    def __init__(self, seed: int, patients: int, studies: int) -> None:
        half, quarter = studies // 2, studies // 4
        self.mimic = mimic_copy.plan(seed, patients=patients, studies=studies)
        self.chexpert = chexpert_copy.plan(seed, train=half, valid=quarter)
        self.nih14 = nih14_copy.plan(seed, train_val=half, test=quarter)
        self.vindr = vindr_copy.plan(
            seed, train=max(2, studies // 5), test=max(1, 3 * studies // 40)
        )

    def shots(self) -> dict[str, list[Shot]]:
        """Return the images of every dataset."""
        return {
            mimic_copy.FOLDER: mimic_copy.shots(self.mimic),
            chexpert_copy.FOLDER: chexpert_copy.shots(self.chexpert),
            nih14_copy.FOLDER: nih14_copy.shots(self.nih14),
            vindr_copy.FOLDER: vindr_copy.shots(self.vindr),
        }

    def counts(self) -> dict[str, int]:
        """Return the number of images of every dataset, and of MIMIC's studies."""
        images = {name: len(listed) for name, listed in self.shots().items()}
        return {**images, "mimic-cxr studies": len(self.mimic)}

    def write(self, root: Path, workers: int, on_progress: Progress | None) -> None:
        """Take every image, then write the tables that need the images' sizes and boxes."""
        shots = [shot for listed in self.shots().values() for shot in listed]
        drawn: dict[str, TakenImage] = {}
        for image in _take_all(root, shots, workers):
            drawn[image.path] = image
            if on_progress is not None:
                on_progress(len(drawn), len(shots))
        mimic_copy.write_tables(root, self.mimic, drawn)
        chexpert_copy.write_tables(root, self.chexpert)
        nih14_copy.write_tables(root, self.nih14, drawn)
        vindr_copy.write_tables(root, self.vindr, drawn)
        ms_cxr_copy.write_tables(root, self.mimic, drawn)
        diff_vqa_copy.write_tables(root, self.mimic)
        ext_vqa_copy.write_tables(root, self.mimic)


def _take_all(root: Path, shots: list[Shot], workers: int) -> Iterator[TakenImage]:
    """Take the images, in order, in ``workers`` processes."""
    if workers == 1:
        yield from (take(root, shot) for shot in shots)
        return
    # spawn: the caller may have threads, which fork does not survive.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(stop,)
    )
    try:
        with runtime.starting_children():
            taken = pool.map(partial(_take_in_worker, root), shots, chunksize=_CHUNK)
        yield from taken
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _start_worker(stop: Event) -> None:
    global _stop
    _stop = stop
    runtime.die_with_parent()
    cv2.setNumThreads(1)


def _take_in_worker(root: Path, shot: Shot) -> TakenImage:
    """Take an image; CancelledError once nobody waits for it: chunks that began go on otherwise."""
    if _stop is not None and _stop.is_set():
        raise CancelledError
    return take(root, shot)


def _complete(manifest: Path, facts: dict[str, object]) -> bool:
    """Return whether the archive is whole and was made with these parameters."""
    try:
        return bool(json.loads(manifest.read_bytes()) == facts)
    except (FileNotFoundError, ValueError):
        return False


def _claim(root: Path) -> None:
    """Mark ``root`` as ours; SourceError if it holds datasets from elsewhere."""
    mark = root / DRAWN_MARK
    if not mark.exists():
        strangers = [name for name in _FOLDERS if (root / name).exists()]
        if strangers:
            raise SourceError(
                f"expected a folder for the demo, found {', '.join(strangers)} from elsewhere",
                hint="choose another folder; the demo would overwrite them",
            )
        root.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _clear(root: Path, manifest: Path) -> None:
    """Remove what an unfinished or different build left, the manifest first."""
    manifest.unlink(missing_ok=True)
    for name in _FOLDERS:
        if (root / name).exists():
            shutil.rmtree(root / name)
