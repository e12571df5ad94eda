"""Tell whose encoder lies at a path, and open it."""

from __future__ import annotations

from pathlib import Path

from lapvqa.errors import CheckpointError, MissingArtifactError
from lapvqa.evaluation.encoders.folders import listed, read_config
from lapvqa.evaluation.encoders.from_open_clip import CONFIG, WEIGHTS, open_open_clip
from lapvqa.evaluation.encoders.from_timm import open_timm
from lapvqa.evaluation.encoders.from_transformers import open_transformers
from lapvqa.evaluation.encoders.own import open_own
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.pretrain.files import CARD_FILE, ENCODER_FILE

_ACCEPTED = (
    "accepted: our export (encoder_final.pt, with card.json or of the published sizes), a "
    "transformers folder (config.json with model_type), a timm folder (config.json with "
    "architecture), an open_clip folder (open_clip_config.json with open_clip_model.safetensors)"
)


def open_encoder(path: Path) -> ImageEncoder:
    """Open the encoder at a local path, in eval mode; nothing is fetched.

    A folder of several forms is opened as the first of: ours, open_clip, transformers, timm.
    Raises MissingArtifactError if nothing is there, MissingPackageError if its library is not
    installed, CheckpointError if it is of no known form or does not fit.
    """
    if path.is_file():
        return open_own(path)
    if not path.is_dir():
        raise MissingArtifactError(
            f"expected an encoder at {path}, found nothing",
            hint=f"give a local path (nothing is downloaded); {_ACCEPTED}",
        )
    return _open_folder(path).eval()


def _open_folder(folder: Path) -> ImageEncoder:
    if (folder / CARD_FILE).is_file() or (folder / ENCODER_FILE).is_file():
        return open_own(folder)
    if (folder / CONFIG).is_file() and any((folder / name).is_file() for name in WEIGHTS):
        return open_open_clip(folder)
    config = read_config(folder / "config.json") if (folder / "config.json").is_file() else {}
    if "model_type" in config:
        return open_transformers(folder)
    if "architecture" in config:
        return open_timm(folder)
    raise CheckpointError(
        f"expected an encoder in the folder {folder.name}, found {listed(folder)}", hint=_ACCEPTED
    )
