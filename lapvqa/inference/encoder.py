"""Films to features with a trained encoder, in three lines.

from lapvqa import Encoder
encoder = Encoder.load("models/captioning")
features = encoder(paths)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapvqa.errors import EXIT_BAD_DATA, LapvqaError
from lapvqa.evaluation.encoders.open_encoder import open_encoder
from lapvqa.evaluation.features import Kind, encode, encoder_digest, rows_at_once
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.inference.films import CHEST_RADIOGRAPHS, Film, Pixels, Reader, Source
from lapvqa.machine import Machine
from lapvqa.networks.device import Computer, choose_device
from lapvqa.params import IngestParams
from lapvqa.recorder import counted
from lapvqa.schemas import STORED_SIZE

Features = NDArray[np.floating]


class RejectedFilmsError(LapvqaError):
    """Some of the films cannot be used; ``films`` says which and why."""

    exit_code = EXIT_BAD_DATA

    def __init__(self, films: list[Film]) -> None:
        counts = Counter(film.reason for film in films if film.reason).most_common()
        first = films[0]
        super().__init__(
            f"{counted(len(films), 'film')} cannot be used: "
            + ", ".join(f"{reason.value} {count}" for reason, count in counts)
            + f"; such as {first.name}: {first.detail}",
            hint=f"{first.reason.remedy if first.reason else ''}; "
            "`Encoder.stream` gives the features of the others",
        )
        self.films = films


class Encoder:
    """A trained encoder behind the pipeline's own rendering, fit and normalisation.

    Calling it maps films to features; ``stream`` does so for as many as there are. Torch's global
    settings are left as they are: on a CPU the last bits depend on the number of threads.
    """

    def __init__(self, model: ImageEncoder, reader: Reader, computer: Computer) -> None:
        self.model = model.to(computer.device).eval()
        self.computer = computer
        self._rows = rows_at_once(model, computer)
        self.reader = replace(reader, batch=self._rows)  # no batch is half empty
        self.digest = encoder_digest(model)
        """Sha256 of the weights, as the evaluations' protocols name it."""

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        machine: Machine | None = None,
        params: IngestParams = CHEST_RADIOGRAPHS,
        computer: Computer | None = None,
    ) -> Encoder:
        """Open the encoder at a local path: a model's folder, a weights file, or a folder of
        transformers, timm or open_clip. Nothing is fetched.

        ``machine``: device and workers, else the best there are; ``params``: which headers are
        accepted; ``computer``: what computes, in place of the machine's device. Raises
        MissingArtifactError, CheckpointError, MissingPackageError, ConfigError.
        """
        machine = machine or Machine()
        computer = computer or Computer(choose_device(machine))
        return cls(open_encoder(Path(path)), Reader(machine.workers, params), computer)

    @property
    def width(self) -> int:
        """The width D of the features."""
        return self.model.width

    @property
    def about(self) -> str:
        """What it is: library, architecture, image size."""
        return self.model.about

    def __call__(self, sources: Source | Iterable[Source], *, kind: Kind = "mean") -> Features:
        """Return the features [n, D] of films (``kind`` mean), or tokens: see ``features.Kind``.

        Raises RejectedFilmsError unless all can be used, SourceError for a folder without films,
        ValueError for an array that is no film.
        """
        encoded = list(self.stream(sources, kind=kind))
        if rejected := [film for film, _ in encoded if film.reason]:
            raise RejectedFilmsError(rejected)
        found = [one for _, one in encoded if one is not None]
        features: Features = np.stack(found) if found else np.zeros((0, self.width), np.float32)
        return features

    def stream(
        self, sources: Source | Iterable[Source], *, kind: Kind = "mean"
    ) -> Iterator[tuple[Film, Features | None]]:
        """Yield each film with its features, in order, folders replaced by what is in them.

        Of a film that cannot be used None, and ``film.reason`` says why.
        """
        return self.reader.each(sources, lambda pixels: list(self.of_stored(pixels, kind=kind)))

    def of_stored(self, pixels: Pixels, *, kind: Kind = "mean", grid: int = 0) -> Features:
        """Return the features of stored images uint8 [n, 384, 384], n >= 1, as ingest keeps them.

        ``grid``: tokens are averaged to so many a side. Raises ValueError for any other array.
        """
        side = STORED_SIZE
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1:] != (side, side):
            raise ValueError(
                f"expected stored images uint8 [n, {side}, {side}], found {pixels.dtype} "
                f"{list(pixels.shape)}; a film of another size is a source: encoder([film])"
            )
        images = self.computer.put(pixels)
        # A CPU's bits are the same in a batch of any size (docs/log.md), and a single film would
        # take as long as a whole batch.
        on_cpu = self.computer.device.type == "cpu"
        rows = min(self._rows, len(pixels)) if on_cpu else self._rows
        return encode(self.model, images, computer=self.computer, rows=rows, kind=kind, grid=grid)
