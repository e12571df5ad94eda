"""A few stored images, their identifiers, and the key that hides them."""

from __future__ import annotations

import pyarrow as pa

from lapvqa.datasets.stored import StoredImages, index
from lapvqa.identity import Keyring
from lapvqa.images.geometry import fit_of

KEYRING = Keyring(b"a key of the tests, long enough")


def dicom(study: int) -> str:
    return f"aaaaaaaa-bbbbbbbb-cccccccc-dddddddd-{study:08d}"


def subject(number: int) -> int:
    return 10000000 + number


def study(number: int, order: int) -> int:
    return 50000000 + 10 * (order + 1) + number


def stored_of(
    splits: dict[int, str], *, size: tuple[int, int] = (2000, 1000), view: str = "PA"
) -> StoredImages:
    """Two studies with one image each for every patient of ``splits``."""
    images, studies = [], []
    fit = fit_of(*size)
    for number, split in splits.items():
        for order in range(2):
            one = study(number, order)
            common = {
                "study_key": KEYRING.study(str(one)),
                "patient_key": KEYRING.patient(str(subject(number))),
                "split": split,
            }
            studies.append({**common, "study_order": order})
            images.append(
                {
                    **common,
                    "image_key": KEYRING.image(dicom(one)),
                    "view": view,
                    "shard": "images-0.arrow",
                    "row": len(images),
                    "native_rows": size[0],
                    "native_cols": size[1],
                    "scale": fit.scale,
                    "offset_x": fit.offset_x,
                    "offset_y": fit.offset_y,
                    "pixels_sha256": f"{len(images):064x}",
                    "decoded_sha256": f"{len(images):064x}",
                }
            )
    return index(pa.Table.from_pylist(images), pa.Table.from_pylist(studies), KEYRING)
