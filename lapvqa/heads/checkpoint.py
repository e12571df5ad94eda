"""Files of heads in the published forms (``head.Form``): written and read.

All are read with ``weights_only=True``: a file never runs code. What does not fit is refused by
name, before any weight is taken over.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from lapvqa import storage
from lapvqa.errors import CheckpointError, MissingArtifactError
from lapvqa.heads.head import Form, Head
from lapvqa.networks.weights import serialise, without_wrappers

H = TypeVar("H", bound=Head)

_STATE = "state_dict"
_NAMED_AT_MOST = 3


@dataclass(frozen=True)
class Loaded(Generic[H]):
    """A head in eval mode, and what its file says besides: encoder, epoch, scores."""

    head: H
    facts: Mapping[str, Any]


def save(head: Head, path: Path, **facts: str | int | float) -> None:
    """Write ``head`` in its published form, atomically; equal weights give equal bytes.

    ``facts``: exactly those of ``head.form.facts``; none for the plain form. Raises ValueError
    for others.
    """
    if set(facts) != set(head.form.facts):
        raise ValueError(
            f"{type(head).__name__}: expected the facts {sorted(head.form.facts)}, "
            f"found {sorted(facts)}"
        )
    weights = _on_cpu(head.state_dict())
    if head.form.is_plain:
        storage.write_bytes(path, serialise(weights))
        return
    arguments = {key: getattr(head, argument) for argument, key in head.form.keys.items()}
    # NumPy's float64 is a float, but not one that weights_only reads.
    plain = {
        name: float(value) if isinstance(value, float) else value for name, value in facts.items()
    }
    storage.write_bytes(path, serialise({_STATE: weights, **arguments, **plain}))


def load(kind: type[H], path: Path, *, vis_dim: int | None = None) -> Loaded[H]:
    """Return the head of class ``kind`` in a file, with what else the file says.

    ``vis_dim``: the width of the features it will get, if known. Raises MissingArtifactError
    without a file; CheckpointError, which names what is wrong, for a damaged file, another form,
    missing arguments, weights that do not fit them, or another width.
    """
    content = _read(path)
    weights = _state_dict(content, kind.form, path)
    arguments = _arguments(content, weights, kind, path)
    if vis_dim is not None and arguments["vis_dim"] != vis_dim:
        raise CheckpointError(
            f"{path.name}: expected a head for visual tokens of width {vis_dim}, "
            f"found one for {arguments['vis_dim']}",
            hint="take the head that was trained on this encoder's features",
        )
    with torch.device("meta"):  # shapes without memory: arguments and weights may disagree
        skeleton = _build(kind, arguments, path)
    _refuse(_shape_faults(skeleton.state_dict(), weights), kind, path)
    with torch.random.fork_rng(devices=[]):
        head = _build(kind, arguments, path)
    head.load_state_dict(weights)
    _refuse(_value_faults(head.state_dict(), weights), kind, path)
    known = set() if kind.form.is_plain else {_STATE, *kind.form.keys.values()}
    facts = {} if kind.form.is_plain else {k: v for k, v in content.items() if k not in known}
    head.eval()
    return Loaded(head, facts)


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU; one tensor under two names stays one."""
    moved: dict[tuple[int, torch.Size], Tensor] = {}
    return {
        name: moved.setdefault((tensor.data_ptr(), tensor.shape), tensor.detach().cpu())
        for name, tensor in weights.items()
    }


def _read(path: Path) -> Any:
    if not path.is_file():
        raise MissingArtifactError(
            f"expected a head's weights at {path.name} in {path.parent.name}/, found no file",
            hint="train the head first, or give the path of a published file",
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path.name}: expected a head's weights, found a damaged or unsafe file",
            hint="get the file again, or train the head again",
        ) from error


def _state_dict(content: Any, form: Form, path: Path) -> dict[str, Tensor]:
    """Return the weights of a file of this form, without what wrappers add to their names."""
    is_dict = isinstance(content, Mapping)
    inner: Any = content if form.is_plain else content.get(_STATE) if is_dict else None
    if not _is_state_dict(inner):
        wanted = "a plain state dict" if form.is_plain else f"a dict with {_STATE} and sizes"
        names = f" with {_named([str(name) for name in content])}" if is_dict else ""
        raise CheckpointError(
            f"{path.name}: expected {wanted}, found {type(content).__name__}{names}",
            hint="the file is of another head, or of an encoder",
        )
    return without_wrappers(inner)


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(tensor, Tensor) for tensor in value.values())
        and all(isinstance(name, str) for name in value)
    )


def _arguments(
    content: Any, weights: Mapping[str, Tensor], kind: type[Head], path: Path
) -> dict[str, int]:
    """Return the constructor's arguments; a plain file has only the shape of ``vis_proj``."""
    if kind.form.is_plain:
        weight = weights.get("vis_proj.weight")
        if weight is None or weight.ndim != 2:
            _refuse(["missing vis_proj.weight, a matrix"], kind, path)
        assert weight is not None
        return {"vis_dim": weight.shape[1]}
    keys = kind.form.keys
    missing = sorted(set(keys.values()) - set(content))
    if missing:
        others = sorted(str(name) for name in set(content) - set(keys.values()) - {_STATE})
        raise CheckpointError(
            f"{path.name}: expected the sizes {', '.join(keys.values())}; missing "
            f"{', '.join(missing)}, found besides them {', '.join(others) or 'nothing'}",
            hint="the file is of another head, or names its sizes otherwise than published",
        )
    arguments = {argument: content[key] for argument, key in keys.items()}
    for argument, value in arguments.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(
                f"{path.name}: expected a positive whole number for {keys[argument]}, "
                f"found {value!r}",
                hint="the file is damaged, or of another head",
            )
    return arguments


def _build(kind: type[H], arguments: dict[str, int], path: Path) -> H:
    try:
        return kind(**arguments)
    except ValueError as error:
        raise CheckpointError(
            f"{path.name}: no {kind.__name__} has these sizes: {error}",
            hint="the file is damaged, or of another head",
        ) from error


def _shape_faults(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Name what is missing, unexpected or of another shape."""
    shapes = [
        f"{name} is {list(found[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    groups = {
        "missing": sorted(set(expected) - set(found)),
        "unexpected": sorted(set(found) - set(expected)),
        "of another shape": shapes,
    }
    return [f"{kind}: {_named(names)}" for kind, names in groups.items() if names]


def _value_faults(loaded: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Name weights that are not finite, and those that the head cannot hold as they are.

    Of two names for one tensor the second wins: if the file has two tensors there, that shows.
    """
    infinite = [name for name, tensor in found.items() if not bool(tensor.isfinite().all())]
    if infinite:
        return [f"not finite: {_named(infinite)}"]
    lost = [
        name
        for name, tensor in found.items()
        if not torch.equal(loaded[name], tensor.to(loaded[name].dtype))
    ]
    return [f"differs from the tensor it is tied to: {_named(lost)}"] if lost else []


def _refuse(faults: list[str], kind: type[Head], path: Path) -> None:
    if faults:
        raise CheckpointError(
            f"{path.name} does not fit {kind.__name__}: {'; '.join(faults)}",
            hint="the file is of another head or size; load it with the class of its card",
        )


def _named(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED_AT_MOST])
    more = len(names) - _NAMED_AT_MOST
    return f"{shown} and {more} more" if more > 0 else shown or "nothing"
