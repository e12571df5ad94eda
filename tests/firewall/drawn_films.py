"""Synthetic films, each of a patient of its own, as they are stored."""

from __future__ import annotations

import numpy as np
from film_edits import Edit, Film

from lapvqa.images.geometry import fit_image
from lapvqa.synth.anatomy import sample_anatomy
from lapvqa.synth.patient_history import sample_findings, stream
from lapvqa.synth.radiograph import Exposure, render

SEED = 4242


def draw(patient: int) -> Film:
    """Return a film without padding."""
    anatomy = sample_anatomy(stream(SEED, patient, 0))
    findings = sample_findings(stream(SEED, patient, 1))
    view = ("PA", "AP", "LATERAL")[patient % 3]
    exposure = Exposure(anatomy, findings, view, 400, 0.85 + 0.1 * (patient % 3), (SEED, patient))
    return render(exposure).film.displayed()


def stored(film: Film) -> Film:
    """Return a film as ingest stores it: uint8 [384, 384]."""
    return fit_image(np.ascontiguousarray(film))[0]


def edited(film: Film, edit: Edit, seed: int = 0) -> Film:
    """Return a copy, edited and stored."""
    return stored(edit(film, np.random.default_rng(seed)))
