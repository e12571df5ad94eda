"""One film's bytes to what the page shows of it. What is missing is said, and the rest is shown."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lapvqa import storage
from lapvqa.errors import LapvqaError
from lapvqa.evaluation import task_table
from lapvqa.evaluation.results import EXTRA
from lapvqa.images.shards import ShardStore
from lapvqa.inference import similar
from lapvqa.inference.attention import attention
from lapvqa.inference.encoder import Encoder
from lapvqa.inference.findings import Findings
from lapvqa.inference.words import Answerer, Captioner
from lapvqa.job import Job
from lapvqa.networks.device import open_computer
from lapvqa.params import Params
from lapvqa.pretrain.files import writes_reports
from lapvqa.probe import head_file
from lapvqa.report.patients import Patients, read_patients
from lapvqa.schemas import IMAGES

SIMILAR = 4
_VEIL, _COLOUR = 0.65, (255, 150, 0)
"""How much of which colour lies over the film where the model looks most."""

T = TypeVar("T")


class Looker:
    """The model of params.yaml with all that was trained on it; ``absent``: what is not there."""

    def __init__(self, params: Params, job: Job) -> None:
        folder = job.model
        self._params, self._job = params, job
        self._patients: Patients | None = None
        self.absent: dict[str, str] = {}
        self._opening: dict[str, Any] = {
            "machine": job.machine, "params": params.ingest,
            "computer": open_computer(job.machine, job.computing),
        }  # fmt: skip
        self.encoder = Encoder.load(folder, **self._opening)
        self.captioner = self._try("report", self._captioner)
        self.probe = ""
        """What the findings are by."""
        self.findings = self._try("findings", self._findings)
        results = job.project.result_dir(task_table.shown_as("answers")[0])
        self.answerer = self._try("answers", lambda: Answerer.load(self.encoder, results))
        self.index = self._try("similar", self._index)

    def _findings(self) -> Findings:
        """Open the first probe that was trained: on a public data set, else on this archive."""
        names = task_table.shown_as("probe")
        folders = {name: self._job.project.result_dir(name) for name in names}
        trained = [name for name in names if (folders[name] / EXTRA / head_file.FILE).exists()]
        name = (trained or names)[0]
        self.probe = task_table.find(name).title
        return Findings.load(self.encoder, folders[name])

    def look(self, data: bytes, question: str = "") -> dict[str, Any]:
        """Return what the page shows of one file's bytes."""
        ((film,),) = self.encoder.reader.batches([data])
        if film.pixels is None:
            assert film.reason is not None
            return {
                "rejected": f"{film.reason.value}: {film.detail}", "remedy": film.reason.remedy
            }  # fmt: skip
        one = film.pixels[None]
        feature = self.encoder.of_stored(one)
        found: dict[str, Any] = {"film": _png(film.pixels), "absent": self.absent}
        if self.captioner is not None:
            (found["report"],) = self.captioner.of_stored(one)
            model, computer = self.captioner.model, self.captioner.computer
            looked_at = attention(model, film.pixels, found["report"], computer)
            found["attention"] = _png(_veiled(film.pixels, looked_at))
        if self.findings is not None:
            (found["findings"],) = self.findings.of(feature)
        if self.answerer is not None and question.strip():
            self.answerer.check(question)
            (found["answer"],) = self.answerer.of_stored(one, question)
        if self.index is not None:
            nearest = self.index.nearest(feature[0], SIMILAR)
            found["similar"] = [self._told(one) for one in nearest]
        return found

    def _captioner(self) -> Captioner | None:
        params = self._params
        if not writes_reports(self._job.model):
            self.absent["report"] = f"{params.pretrain.objective} trains no decoder"
            return None
        return Captioner.load(
            self._job.model, **self._opening,
            max_new_tokens=params.evaluate.rrg.max_new_tokens,
        )  # fmt: skip

    def _index(self) -> similar.Index:
        project = self._job.project
        images = storage.read_table(project.images, IMAGES, made_by="ingest")
        wanted = self._params.report.patients == "show"
        self._patients = read_patients((), project, images, wanted=wanted)
        self._store = ShardStore(project.images_dir)
        return similar.build(self.encoder, self._job)

    def _told(self, film: similar.Similar) -> dict[str, Any]:
        """Return what may be said of a film of the archive; its pixels only if they may be shown.

        Never those of a study whose report was flagged, and of patients only if
        ``report.patients`` says so.
        """
        said = {"key": film.image_key[:12], "view": film.view, "cosine": round(film.cosine, 3)}
        assert self._patients is not None
        flagged = {film.image_key, film.study_key} & set(self._patients.flagged)
        if flagged or (self._patients.real and not self._patients.wanted):
            return said
        (pixels,) = self._store.read([film.shard], [film.row])
        return {**said, "film": _png(pixels)}

    def _try(self, what: str, load: Callable[[], T | None]) -> T | None:
        try:
            return load()
        except LapvqaError as error:
            self.absent[what] = f"{error.message}; {error.hint}"
            return None


def _veiled(pixels: NDArray[np.uint8], shares: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the film uint8 [384, 384, 3] with colour where ``shares`` [g, g] are large."""
    side = len(pixels)
    cells = torch.from_numpy(shares.copy())[None, None]
    smooth = torch.nn.functional.interpolate(cells, (side, side), mode="bicubic")[0, 0].numpy()
    low, high = float(smooth.min()), float(smooth.max())
    strength = (smooth - low) / max(high - low, 1e-9)
    weight = (_VEIL * strength)[..., None]
    mixed = pixels[..., None] * (1 - weight) + np.array(_COLOUR) * weight
    return mixed.astype(np.uint8)


def _png(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
