"""Linear probe: logistic regressions on the features of a frozen encoder.

``chexpert`` ``nih14`` ``nih14_extras``
    readers of the two public layouts: names, columns, splits and traps of the published files
``dataset``
    what a reader hands on; validation is carved from training patients; leaks are refused
``images``
    image files to stored 384 x 384 pixels
``linear``
    the classifiers: standardised features, L2, regularisation chosen on validation patients
``recipe`` ``scoring``
    from features to predictions; from predictions to AUROC and ROC curves

Contracts
    ``recipe`` writes rows of ``schemas.PROBE_PREDICTIONS`` for test images only; ``scoring`` reads
    nothing else. No torch in this room: features come as arrays.

Pitfalls
    * CheXpert's csv paths begin with the name of the dataset's folder, whatever yours is called.
    * CheXpert's columns are not in MIMIC's order; NIH's header has commas inside two names.
    * A blank in CheXpert is no mention and counts as 0; -1 is uncertain and goes by policy.
    * NIH images lie in one folder or in twelve: they are found by file name.
    * A file that cannot be read is counted, and stops the evaluation above 1 %.
"""
