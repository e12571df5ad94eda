"""The encoder as a file that computes without this code: torch.export (.pt2) and ONNX.

Both map normalised images float32 [B, 1, S, S], for any B >= 1, to pooled tokens [B, g * g, D].
Equal weights give equal bytes: paths of source files, which tracing records, are removed, and
classes are named by their published paths.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from lapvqa import extras
from lapvqa.errors import ConfigError
from lapvqa.networks.encoder import VisionEncoder

Compute = Callable[[Tensor], Tensor]

OPSET = 18
"""Version of ONNX's operators: the one that torch translates to without a conversion."""

_PUBLISHED = {"lapvqa.networks.encoder": "lapvqa.pretrain.encoder"}
"""Modules whose classes are recorded under another path, from which they can be imported too."""

# protobuf, in which ONNX is written, has signed 32-bit lengths; the graph takes some of it.
_ONNX_BYTES = 2**31 - 2**24


def published_path(kind: type) -> str:
    """Return the path of a class that files record, wherever its code lives."""
    return f"{_PUBLISHED.get(kind.__module__, kind.__module__)}.{kind.__name__}"


def require_onnx(encoder: VisionEncoder) -> None:
    """Raise an error if ONNX cannot be written here: packages absent, or an encoder too large.

    Called before any work, because tracing takes minutes at the published sizes.
    """
    asks = "params.yaml: export.onnx is true, which"
    extras.require("export", needed_for=asks, instead="set export.onnx to false")
    num_bytes = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    if num_bytes > _ONNX_BYTES:
        raise ConfigError(
            f"params.yaml: export.onnx is true, but the encoder has {num_bytes / 2**30:.1f} GiB "
            "and an ONNX file holds less than 2",
            hint="set export.onnx to false; exports/encoder.pt2 holds any size",
        )


def trace(encoder: VisionEncoder) -> ExportedProgram:
    """Trace ``encoder`` for any number of images."""
    size = encoder.image_size
    # Two images: a batch of one would be taken for a constant.
    images = torch.zeros(2, 1, size, size)
    program = torch.export.export(encoder, (images,), dynamic_shapes=({0: Dim("batch")},))
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
                _publish_classes(node.meta.get("nn_module_stack", {}))
    return program


def _publish_classes(stack: dict[str, tuple[str, str]]) -> None:
    """Replace the class of each module of a node's ``stack`` by its published path."""
    for key, (path, kind) in stack.items():
        module, _, name = kind.rpartition(".")
        if module in _PUBLISHED:
            stack[key] = (path, f"{_PUBLISHED[module]}.{name}")


def to_pt2(program: ExportedProgram) -> bytes:
    """Return the content of a .pt2 file."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def to_onnx(program: ExportedProgram) -> bytes:
    """Return the content of an .onnx file: input ``images``, output ``tokens``, axis ``batch``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own use of what it deprecates
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=OPSET,
            input_names=["images"], output_names=["tokens"],
        )  # fmt: skip
    assert made is not None
    model: Any = made.model_proto
    del model.graph.value_info[:]  # intermediate shapes, in terms of the tracer's symbols
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    graph = model.graph
    for part in (model, graph, *graph.input, *graph.output, *graph.node):
        del part.metadata_props[:]
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def load_pt2(content: bytes) -> Compute:
    """Return the module of a .pt2 file."""
    compute: Compute = torch.export.load(io.BytesIO(content)).module()
    return compute


def load_onnx(content: bytes) -> Compute:
    """Return an .onnx file run by onnxruntime on the CPU, after ONNX's own check of it."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(content, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        content, sess_options=options, providers=["CPUExecutionProvider"]
    )

    def compute(images: Tensor) -> Tensor:
        (tokens,) = session.run(["tokens"], {"images": images.numpy()})
        return torch.from_numpy(tokens)

    return compute
