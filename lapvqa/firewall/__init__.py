"""What training must not know: images, studies and reports that a test set has too. No torch.

Files, in the order in which data meets them:
    firewall.py     the stage: training beside every test set; who goes, and what is left
    held_out.py     the test sets as the evaluations read them: images, patients, pixels
    leaks.py        what both sides share by digests and keys: films, studies, patients
    films.py        near films: descriptors and verdicts, kept from run to run
    trim.py         what of a film is picture
    descriptors.py  one film to 2 x 2048 bits that survive edits, and its five orientations
    nearest.py      the distance of all bits to a film's, compiled
    same_film.py    two films to a score: is one an edited copy of the other
    matching.py     all queries against all references: bits first, pixels for the candidates
    reports.py      reports that say the same under another patient's name
    account.py      what is written: excluded images, tested images, counts

Contracts
    A film is uint8 [H, W], grey: the stored square, or any other rendering of a radiograph.
    Descriptors are uint8 [BYTES] each, comparable with those of the same ``descriptors.VERSION``.
    Training loses, tests keep: no test set is changed here. excluded.parquet names what training
    would have taken and nothing else, so its bytes alone decide whether pretraining is stale.
"""
