"""Whom an evaluation judges: encoders by the name of their system, and where results go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lapvqa import storage
from lapvqa.evaluation.image_encoder import ImageEncoder, OwnEncoder
from lapvqa.job import Job
from lapvqa.pretrain.files import load_encoder, untrained_encoder


@dataclass(frozen=True)
class Subject:
    """What is judged.

    ``load``: makes the frozen encoders, system -> encoder, when they are needed. ``results``: has
    a folder per task. ``model``: folder of the pipeline's own model, whose decoder and words some
    tasks use; None where an encoder stands alone.
    """

    load: Callable[[], dict[str, ImageEncoder]]
    results: Path
    model: Path | None

    def folder(self, task: str) -> Path:
        """Return where the task's predictions and metrics go."""
        return self.results / task


def pipeline(job: Job) -> Subject:
    """Return the pipeline's encoder and its untrained twin; results are the stages' outputs."""
    folder = encoder_folder(job)
    return Subject(lambda: load_systems(folder), job.project.root / "results", folder)


def encoder_folder(job: Job) -> Path:
    """Return the folder of the encoder that params.yaml names (models/<objective>)."""
    folder = job.model
    storage.require(folder / "card.json", made_by="export")
    storage.require(folder / "encoder_final.pt", made_by="export")
    return folder


def load_systems(folder: Path) -> dict[str, ImageEncoder]:
    """Return the trained encoder of ``folder`` and its untrained twin, in eval mode."""
    return {
        "trained": OwnEncoder(load_encoder(folder)),
        "untrained": OwnEncoder(untrained_encoder(folder)),
    }
