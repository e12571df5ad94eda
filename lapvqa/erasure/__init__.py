"""Erasure of a patient: everything that the project holds of them, and the proof that it is gone.

Files, in the order in which data meets them:
    whom.py        a raw or hashed id to the patient's key
    copies.py      films of the patient under other ids, edited
    traces.py      by what the patient is found again: keys, digests, paths, sentences, pixels
    search.py      the search for traces in any file
    stores.py      the stores of the project, and how a find is removed in each
    databases.py   SQLite: values overwritten, free pages and logs emptied
    impact.py      models, metrics, what retraining costs, rows rewritten
    journal.py     an open erasure, so that one that was cut off goes on
    erase.py       the steps from the look to the receipt
    receipt.py     the receipt: JSON and a page, with receipt.html

Contracts
    The raw archive is never changed. What is found is found by content, in every store, whoever
    put it there; what the pipeline can make again is made by its own stages (tombstones.json).
    A receipt names nobody.

Pitfalls
    The traces name the patient: they live in the journal alone, and it is deleted at the end.
    Nothing here imports dvc, prefect or mlflow: their stores are in tasks/erasing.
"""
