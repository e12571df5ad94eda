"""Linear probes: logistic regressions on the features of an encoder, on three sets of films.

Files, in the order in which data meets them:
    task.py         what the records of both probes share
    on_chexpert.py  the record for CheXpert-5: its data, how labels are read, words for the page
    on_nih14.py     the record for NIH ChestX-ray14
    on_archive.py   the record for the archive's own films
    own_labels.py   a table of labels of one's own, by the archive's identifiers
    film_labels.py  labels of the archive's films: that table, the archive's, or read in reports
    judge.py        features of every image, a probe per encoder, predictions and protocol
    judge_archive.py  the same of the archive's stored films
    linear.py       the classifiers: standardised features, L2, regularisation chosen on validation
    head_file.py    the fitted regressions as a file, extra/probe.safetensors
    scoring.py      AUROC, AUPRC and calibration of predictions

Contracts
    ``judge`` writes rows of ``schemas.PROBE_PREDICTIONS`` for test images only; ``scoring`` reads
    nothing else. Readers are in ``lapvqa.datasets``; validation is carved from training patients.

Pitfalls
    * CheXpert's csv paths begin with the name of the dataset's folder, whatever yours is called.
    * CheXpert's columns are not in MIMIC's order; NIH's header has commas inside two names.
    * A blank in CheXpert is no mention and counts as 0; -1 is uncertain and goes by policy.
    * NIH images lie in one folder or in twelve: they are found by file name.
    * A file that cannot be read is counted, and stops the evaluation above 1 %.
"""
