"""The encoder as a file that computes without this code: torch.export (.pt2) and ONNX.

Both map normalised images float32 [B, 1, S, S], any B from 1, to pooled tokens [B, g * g, D].
Equal weights give equal bytes: what tracing notes about this machine (paths of source files) is
taken out.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from lapvqa.errors import ConfigError
from lapvqa.networks.encoder import VisionEncoder

Compute = Callable[[Tensor], Tensor]

OPSET = 18
"""Version of ONNX's operators: the one that torch translates to without a conversion."""

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# protobuf, in which ONNX is written, has signed 32-bit lengths; the graph takes some of it.
_ONNX_BYTES = 2**31 - 2**24


def require_onnx(encoder: VisionEncoder) -> None:
    """Raise ConfigError if ONNX cannot be written here: packages absent, or an encoder too large.

    Asked before any work, because a graph is traced in minutes at the published sizes.
    """
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(
            f"params.yaml: export.onnx is true, but {', '.join(absent)} is not installed",
            hint="run `make setup-export`, or set export.onnx to false",
        )
    num_bytes = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    if num_bytes > _ONNX_BYTES:
        raise ConfigError(
            f"params.yaml: export.onnx is true, but the encoder has {num_bytes / 2**30:.1f} GiB "
            "and an ONNX file holds less than 2",
            hint="set export.onnx to false; exports/encoder.pt2 holds any size",
        )


def trace(encoder: VisionEncoder) -> ExportedProgram:
    """Record what ``encoder`` computes, for any number of images."""
    size = encoder.image_size
    # An example of two: a batch of one would be taken for a constant.
    images = torch.zeros(2, 1, size, size)
    program = torch.export.export(encoder, (images,), dynamic_shapes=({0: Dim("batch")},))
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


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
    del model.graph.value_info[:]  # shapes in between, in terms of the tracer's symbols
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    graph = model.graph
    for part in (model, graph, *graph.input, *graph.output, *graph.node):
        del part.metadata_props[:]
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def load_pt2(content: bytes) -> Compute:
    """Return what a .pt2 file computes."""
    compute: Compute = torch.export.load(io.BytesIO(content)).module()
    return compute


def load_onnx(content: bytes) -> Compute:
    """Return what an .onnx file computes, by onnxruntime on the CPU; it is checked first."""
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
