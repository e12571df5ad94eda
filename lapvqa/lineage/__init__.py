"""Where a result came from, and what came of a patient's films: one ledger, asked both ways.

The ledger ties DVC (which bytes), git (which code), Prefect (which run) and MLflow (which records)
together. It is the truth; the index is made from it at will.

Files, in the order in which an entry meets them:
    environment.py   where a stage ran
    runs.py          what the ledger says of one run
    recording.py     a run's entry from dvc.lock, with the runs that it stands on
    ledger.py        append-only entries under ledger/, chained by digests, payloads erasable
    row_numbers.py   numbers in place of patients' and studies' keys
    first_ledger.py  the ledger of version 0.1, taken over
    contents.py      what a table or a metrics.json says that a model card tells
    history.py       what of the ledger belongs to one run or model
    file_digests.py  digests of a file that say where it changed
    signing.py       what leaves the project, signed
    provenance.py    how a model was made, as a statement to be signed
    card/            model card and datasheet from the ledger alone, and their checker
    bundle.py        a run or model in one signed file, and its import elsewhere
    exports/         the ledger in the formats of others
    index.py         all of it as SQLite, for questions
    origins.py       how an artefact came to be: dvc.lock joined with the ledger
    walk.py          what a person asks about, and the walk upstream from it

Pitfalls
    Run ids never stand inside an output (its hash would change on every run).
    Two runs may leave equal bytes: edges go by run, never by md5 alone.
    Nothing here imports dvc, prefect, mlflow or torch: `lapvqa lineage` must answer in a moment
    and must work while DVC holds its locks.
"""
