"""Findings with scores: the probe that an evaluation fitted, on the encoder it was fitted on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lapvqa.errors import CheckpointError, MissingArtifactError
from lapvqa.evaluation.results import EXTRA, METRICS, OK
from lapvqa.inference.encoder import Encoder, Features
from lapvqa.probe import head_file
from lapvqa.probe.linear import LinearHead
from lapvqa.storage import read_json


def protocol_of(results: Path, encoder: Encoder) -> dict[str, Any]:
    """Return how the heads of an evaluation were trained.

    Raises MissingArtifactError if it was not computed, CheckpointError if its heads are of another
    encoder than ``encoder``.
    """
    task = results.name
    result = read_json(results / METRICS, made_by=f"evaluate@{task}")
    if result["status"] != OK:
        raise MissingArtifactError(
            f"expected a trained head, found that {task} was not computed: {result['reason']}",
            hint=f"with its data at hand, `lapvqa run --stage evaluate@{task}`",
        )
    protocol: dict[str, Any] = result["protocol"]
    trained_on = protocol.get("encoder_sha256_trained")
    if trained_on != encoder.digest:
        raise CheckpointError(
            f"expected the head's encoder, {str(trained_on)[:12]}, found {encoder.digest[:12]}",
            hint=f"`lapvqa run --stage evaluate@{task}` trains a head on the pipeline's encoder",
        )
    return protocol


class Findings:
    """Probabilities of findings, of the features of films."""

    def __init__(self, head: LinearHead, labels: list[str]) -> None:
        self.head, self.labels = head, labels

    @classmethod
    def load(cls, encoder: Encoder, results: str | Path) -> Findings:
        """Open the probe in the folder of an evaluation such as ``probe_chexpert``.

        Raises as ``protocol_of``, and MissingArtifactError without a file.
        """
        folder = Path(results)
        protocol_of(folder, encoder)
        return cls(*head_file.load(folder / EXTRA / head_file.FILE))

    def of(self, features: Features) -> list[dict[str, float]]:
        """Map features [n, D] (``kind`` mean) to label -> probability, of each label fitted."""
        scores = self.head.predict(features.astype(np.float64))
        return [
            {label: float(s) for label, s in zip(self.labels, row, strict=True) if np.isfinite(s)}
            for row in scores
        ]
