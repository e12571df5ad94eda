"""Using a trained model: films in, features or words out.

Files, in the order in which data meets them:
    films.py      what a client has (paths, folders, bytes, arrays) to stored pixels, or a reason
    encoder.py    ``Encoder``: films to features
    findings.py   probabilities of findings, by the probe of an evaluation
    words.py      reports that the model writes, answers of the VQA head
    attention.py  where the model looks while it writes
    similar.py    the archive's films that are most alike
    table.py      features as a table of Parquet, a row per film

Contracts
    A film is rendered, fitted and normalised by the functions of the pipeline (``dicom.picture``,
    ``images.transforms``) and computed by that of the evaluations (``features.encode``): the
    features of a film are those that its evaluation computed, on one machine and as many threads.
    No film is left out in silence: it has features, or a code of ``Reason`` with its remedy.

Pitfalls
    Files are decoded in this process, as the evaluations do: a file that crashes its decoder ends
    it. Ingest, which reads archives, gives each file to a worker that may die.
"""
