"""Write what the films of the demo have in common: lapvqa/firewall/typical_chest.npy.

    python docs/make_typical_chest.py

The mean of 128 synthetic radiographs and their mirror images, 1,728 values in bytes. Every stored
descriptor depends on the file: a new one asks for a new ``descriptors.VERSION``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lapvqa.firewall import descriptors
from lapvqa.firewall.trim import trim
from lapvqa.synth.anatomy import sample_anatomy
from lapvqa.synth.patient_history import sample_findings, stream
from lapvqa.synth.radiograph import Exposure, render

FILMS, SIZE, VIEWS = 128, 320, ("PA", "AP", "PA", "AP", "LATERAL")


def main() -> None:
    """Draw, describe, average, write."""
    vectors = []
    for film in range(FILMS):
        anatomy, findings = sample_anatomy(stream(7, film, 0)), sample_findings(stream(7, film, 1))
        view, aspect = VIEWS[film % len(VIEWS)], 0.8 + 0.4 * (film % 9) / 8
        drawn = render(Exposure(anatomy, findings, view, SIZE, aspect, (7, film, 2)))
        cells = descriptors._cells(trim(drawn.film.displayed()))
        for orientation in ("upright", "mirrored"):
            vectors.append(descriptors._blocks(descriptors._turned_cells(cells, orientation)))
    mean = np.rint(255 * np.mean(vectors, axis=0)).astype(np.uint8)
    folder = Path(descriptors.__file__).parent
    np.save(folder / "typical_chest.npy", mean.reshape(12, 12, 12))


if __name__ == "__main__":
    main()
