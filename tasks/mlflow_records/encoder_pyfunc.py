"""The registered encoder: what MLflow loads as ``models:/lapvqa-encoder@champion``, or serves.

MLflow copies this file into the model ("models from code": no pickle) and runs it on load, beside
encoder.safetensors and card.json. It needs the package lapvqa.
"""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from lapvqa import Encoder

FORMS = ("film", "path", "pixels")


class FilmEncoder(PythonModel):
    """Films in, features out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the weights; their sizes are those of card.json beside them."""
        self.encoder = Encoder.load(context.artifacts["weights"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return a row per film: sha256, feature; of one that cannot be used reason and detail.

        A row has one of the columns: ``film``, the bytes of a DICOM, PNG or JPEG file (base64 in
        JSON); ``path``, a file or folder where the model runs; ``pixels``, rows of whole grey
        values in 0..255, 0 black. Parameter ``kind``: mean, pooled or patches.
        Raises ValueError for a row without, with two, or with other pixels.
        """
        sources = [_source(row) for row in model_input.to_dict("records")]
        kind = (params or {}).get("kind", "mean")
        rows = [
            {
                "path": film.name,
                "sha256": film.sha256,
                "feature": None if feature is None else feature.tolist(),
                "reason": film.reason and film.reason.value,
                "detail": film.detail or None,
            }
            for film, feature in self.encoder.stream(sources, kind=kind)
        ]
        return pd.DataFrame(rows)


def _source(row: dict[str, Any]) -> Any:
    """Return what a row brings."""
    given = {form: row[form] for form in FORMS if _is_there(row.get(form))}
    if len(given) != 1:
        raise ValueError(
            f"expected one of {', '.join(FORMS)} in each row, found {', '.join(given) or 'none'}"
        )
    ((form, value),) = given.items()
    return _greys(value) if form == "pixels" else value


def _is_there(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and np.isnan(value))


def _greys(value: Any) -> np.ndarray:
    """Return rows of whole numbers in 0..255 as uint8 [rows, cols]; ValueError for others."""
    pixels = np.array([np.asarray(row) for row in value])
    if pixels.ndim == 2 and pixels.dtype.kind in "iu" and pixels.size:
        low, high = int(pixels.min()), int(pixels.max())
        if low >= 0 and high <= 255:
            return pixels.astype(np.uint8)
    raise ValueError(
        f"expected pixels as rows of whole grey values in 0..255, found {pixels.dtype} "
        f"{list(pixels.shape)}; send other depths as the bytes of a PNG or DICOM file"
    )


mlflow.models.set_model(FilmEncoder())
