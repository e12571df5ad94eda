"""Turn whatever parsers and decoders raise or print into one reason, without quoting the file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError


@contextmanager
def as_reason(reason: Reason, expected: str) -> Iterator[None]:
    """Turn whatever a parser or decoder raises into DicomError; only its type is kept.

    Their texts may quote the file, and the file may name a patient.
    """
    try:
        yield
    except (DicomError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of a decoder in Rust is no Exception
        name = type(error).__name__
        raise DicomError(reason, f"expected {expected}, met {name}", exception=name) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings: they may quote values of the header."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
