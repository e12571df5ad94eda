"""Films that are the same although their bytes differ: pictures in, matches out. No torch.

Files, in the order in which data meets them:
    trim.py         what of a film is picture
    descriptors.py  one film to 2 x 2048 bits that survive edits, and its five orientations
    nearest.py      the distance of all bits to a film's, compiled
    same_film.py    two films to a score: is one an edited copy of the other
    matching.py     all queries against all references: bits first, pixels for the candidates

Contracts
    A film is uint8 [H, W], grey: the stored square, or any other rendering of a radiograph.
    Descriptors are uint8 [BYTES] each, comparable with those of the same ``descriptors.VERSION``.
"""
