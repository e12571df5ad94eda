"""card.json for a reader: what the encoder is, takes, gives and comes from, and a line per file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lapvqa.report.page_results import flatten

_OBJECTIVES = {
    "captioning": "writes the report of a film",
    "coca": "writes the report of a film, and tells which report belongs to which film (CoCa)",
    "contrastive": "tells which report belongs to which film (InfoNCE)",
    "sigmoid": "tells of each film and report whether they belong together (SigLIP)",
}
_SHORT = 16
_WRITERS = ("captioning", "coca")
_KNOWN = ("objective", "encoder_of", "init_seed", "model", "input", "output", "training",
          "files", "sha256")  # fmt: skip


@dataclass(frozen=True)
class CardFile:
    """One file of weights: what it holds, how it is loaded, the beginning of its sha256."""

    name: str
    holds: str
    load: str
    sha256: str


@dataclass(frozen=True)
class ModelCard:
    """``facts``: heading -> text; ``rest``: what no heading has, as ``flatten`` gives it."""

    facts: dict[str, str]
    files: list[CardFile]
    rest: dict[str, str]

    @property
    def encoder(self) -> str:
        """The beginning of the encoder's sha256, by which the ledger knows it; empty if unknown."""
        return next((file.sha256 for file in self.files if file.name == "encoder_final.pt"), "")


def read_model_card(card: Mapping[str, Any]) -> ModelCard:
    """Turn the content of card.json into words; what a card lacks is left out."""
    facts = {}
    for heading, say in _SAY.items():
        try:
            facts[heading] = say(card)
        except (KeyError, TypeError, IndexError, ValueError):  # of another version, or form
            continue
    rest = {key: value for key, value in card.items() if key not in _KNOWN}
    return ModelCard(facts, list(_files(card)), flatten(rest) if rest else {})


def _files(card: Mapping[str, Any]) -> Iterator[CardFile]:
    described, digests = card.get("files"), card.get("sha256")
    if not isinstance(described, Mapping) or not isinstance(digests, Mapping):
        return
    for name, facts in described.items():
        holds = facts.get("holds", "") if isinstance(facts, Mapping) else ""
        parts = [str(part).replace("_", " ") for part in holds] if isinstance(holds, list) else None
        yield CardFile(
            str(name),
            ", ".join(parts) if parts is not None else str(holds),
            str(facts.get("load", "")) if isinstance(facts, Mapping) else "",
            str(digests.get(name, ""))[:_SHORT],
        )


def _network(card: Mapping[str, Any]) -> str:
    sizes = card["model"]
    second = (
        f"a decoder of depth {sizes['decoder_depth']}, width {sizes['decoder_width']}"
        if card["objective"] in _WRITERS
        else f"a text encoder of depth {sizes['text_depth']}, width {sizes['text_width']}"
    )
    return (
        f"vision transformer of depth {sizes['depth']}, width {sizes['width']}, {sizes['heads']} "
        f"heads; {sizes['image_size']} x {sizes['image_size']} pixels in patches of "
        f"{sizes['patch_size']}. Trained with {second}."
    )


def _input(card: Mapping[str, Any]) -> str:
    given = card["input"]
    norm, shape = given["normalisation"], ", ".join(map(str, given["shape"]))
    return (
        f"{given['dtype']} [{shape}], each value (v / {norm['divide']} - {norm['mean']}) / "
        f"{norm['std']}, from {given['from']}"
    )


def _output(card: Mapping[str, Any]) -> str:
    given = card["output"]
    text = (
        f"{given['pooled_tokens']} tokens of width {given['width']}, pooled from "
        f"{given['patch_tokens']} patches"
    )
    return f"{text}; embeddings of {given['embedding']}" if "embedding" in given else text


def _training(card: Mapping[str, Any]) -> str:
    facts = card["training"]
    return (
        f"{facts['train_pairs']:,} pairs of film and report, {facts['validate_pairs']:,} to choose "
        f"by; {facts['steps']:,} steps from seed {card['init_seed']}; lowest validation loss "
        f"{facts['best_val_loss']:.3f} at step {facts['best_step']:,}"
    )


_SAY: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "Learnt": lambda card: f"{card['objective']}: it {_OBJECTIVES[card['objective']]}",
    "Network": _network,
    "Takes": _input,
    "Gives": _output,
    "Training": _training,
    "Encoder of": lambda card: str(card["encoder_of"]),
    "Pairs it was trained on": lambda card: f"digest {card['training']['data_digest'][:_SHORT]}",
}
