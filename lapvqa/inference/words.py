"""Films to words: the report that the model writes, and answers of the trained VQA head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from lapvqa.errors import CheckpointError, ConfigError, MissingArtifactError
from lapvqa.evaluation.head_training import HEAD
from lapvqa.evaluation.image_encoder import OwnEncoder
from lapvqa.evaluation.results import EXTRA
from lapvqa.evaluation.visual_tokens import ENCODER, VisualTokens
from lapvqa.evaluation.writing import as_sample, write
from lapvqa.heads import checkpoint
from lapvqa.heads.text import of_size
from lapvqa.inference.encoder import Encoder
from lapvqa.inference.films import CHEST_RADIOGRAPHS, Film, Pixels, Reader, Source
from lapvqa.inference.findings import protocol_of
from lapvqa.machine import Machine
from lapvqa.networks.device import Computer, choose_device
from lapvqa.networks.weights import load_weights
from lapvqa.params import IngestParams
from lapvqa.pretrain.files import EPOCHS_DIR, MODEL_FILE, TRAINING_FILE, load_captioner
from lapvqa.pretrain.model import CaptioningModel
from lapvqa.rrg.decoding import write_reports
from lapvqa.vqa.model import VQAHead

MAX_NEW_TOKENS = 256


class Captioner:
    """A captioning model behind the pipeline's own rendering; it writes what ``rrg`` judges."""

    def __init__(
        self, model: CaptioningModel, reader: Reader, computer: Computer, max_new_tokens: int
    ) -> None:
        self.model, self.reader = model.to(computer.device).eval(), reader
        self.computer, self.max_new_tokens = computer, max_new_tokens

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        machine: Machine | None = None,
        params: IngestParams = CHEST_RADIOGRAPHS,
        computer: Computer | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Captioner:
        """Open a model's folder; see ``Encoder.load``.

        Raises MissingArtifactError if none is there, CheckpointError for an encoder alone, and for
        an objective that writes no reports.
        """
        _require_decoder(Path(folder))
        machine = machine or Machine()
        computer = computer or Computer(choose_device(machine))
        reader = Reader(machine.workers, params)
        return cls(load_captioner(Path(folder)), reader, computer, max_new_tokens)

    def stream(self, sources: Source | Iterable[Source]) -> Iterator[tuple[Film, str | None]]:
        """Yield each film with its report; None for a film that cannot be used."""
        return self.reader.each(sources, self.of_stored)

    def of_stored(self, pixels: Pixels) -> list[str]:
        """Return the report of each stored image uint8 [k, 384, 384]."""
        images = self.computer.put(pixels)
        return write_reports(
            self.model, images, computer=self.computer, max_new_tokens=self.max_new_tokens
        )


def _require_decoder(folder: Path) -> None:
    if not folder.exists():
        raise MissingArtifactError(
            f"expected a model folder with a decoder at {folder}, found nothing",
            hint="check the path; of this project's own: `lapvqa run --stage export`",
        )
    if folder.is_file() or not {MODEL_FILE, TRAINING_FILE, EPOCHS_DIR}.intersection(
        path.name for path in folder.iterdir()
    ):
        raise CheckpointError(
            f"expected a model that writes reports at {folder}: this is an encoder alone",
            hint="captions need a model folder with a decoder (models/captioning)",
        )


class Answerer:
    """The VQA head of an evaluation over the encoder that it was trained on."""

    def __init__(
        self, encoder: Encoder, head: VQAHead, max_new_tokens: int, *, grid: int = 0
    ) -> None:
        """``grid``: see ``Encoder.of_stored``."""
        self.encoder, self.head, self.max_new_tokens = encoder, head, max_new_tokens
        self._grid = grid

    @classmethod
    def load(cls, encoder: Encoder, results: str | Path) -> Answerer:
        """Open the head in the folder of the evaluation ``vqa``, for its own encoder.

        Raises MissingArtifactError without a head, CheckpointError for one of another encoder. A
        head of a native recipe brings the weights that its encoder ended with.
        """
        folder = Path(results)
        protocol = protocol_of(folder, encoder)
        if protocol["recipe_encoder"] == "native":
            assert isinstance(encoder.model, OwnEncoder)
            load_weights(encoder.model.encoder, folder / EXTRA / ENCODER)
        sizes = {name: int(protocol[f"head_{name}"]) for name in ("d_model", "num_layers", "nhead")}
        path = folder / EXTRA / HEAD
        head = checkpoint.load(of_size(VQAHead, **sizes), path, vis_dim=encoder.width).head
        grid = int(protocol.get("recipe_token_grid", 0))
        return cls(encoder, head, int(protocol["max_new_tokens"]), grid=grid)

    def stream(
        self, sources: Source | Iterable[Source], question: str
    ) -> Iterator[tuple[Film, str | None]]:
        """Yield each film with the answer to ``question``; None for a film that cannot be used.

        Raises ConfigError for a question without words, or of more tokens than the head has places.
        """
        self.check(question)
        return self.encoder.reader.each(sources, lambda pixels: self.of_stored(pixels, question))

    def check(self, question: str) -> None:
        """Raise ConfigError for a question without words, or one that is too long."""
        longest = self.head.max_length - self.max_new_tokens
        tokens = len(as_sample((0,), question, "").prompt)
        if not question.strip() or tokens > longest:
            raise ConfigError(
                f"expected a question of 1 to {longest} tokens, found {tokens}",
                hint='such as: lapvqa ask film.dcm "is there pleural effusion?"',
            )

    def of_stored(self, pixels: Pixels, question: str) -> list[str]:
        """Return the answer about each stored image uint8 [k, 384, 384]."""
        samples = [as_sample((number,), question, "") for number in range(len(pixels))]
        computer = self.encoder.computer
        # Rounded to half precision, as the evaluations' store keeps them.
        kept = self.encoder.of_stored(pixels, kind="pooled", grid=self._grid)
        tokens = VisualTokens(
            self.encoder.model, lambda numbers: kept[list(numbers)], Tensor.float, computer,
            trained=False,
        )  # fmt: skip
        with computer.inference():
            return write(self.head, tokens, samples, max_new_tokens=self.max_new_tokens)
