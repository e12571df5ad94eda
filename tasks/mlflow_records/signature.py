"""What the registered encoder takes and gives, in MLflow's terms, and an example of a request."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature


def signature() -> ModelSignature:
    """Return the columns of a request, of which each row has one, and of the answer."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array, DataType

    films = Schema(
        [
            ColSpec(DataType.binary, "film", required=False),
            ColSpec(DataType.string, "path", required=False),
            ColSpec(Array(Array(DataType.long)), "pixels", required=False),
        ]
    )
    features = Schema(
        [
            ColSpec(DataType.string, "path"),
            ColSpec(DataType.string, "sha256"),
            ColSpec(AnyType(), "feature", required=False),
            ColSpec(DataType.string, "reason", required=False),
            ColSpec(DataType.string, "detail", required=False),
        ]
    )
    kind = ParamSchema([ParamSpec("kind", DataType.string, "mean")])
    return ModelSignature(inputs=films, outputs=features, params=kind)


def example() -> pd.DataFrame:
    """Return a request with one DICOM file."""
    import pandas as pd

    film = files("lapvqa.dicom").joinpath("samples", "deflated.dcm").read_bytes()
    return pd.DataFrame({"film": [film]})
