"""Where a result came from: from any file, metric or run up to the inventory of the DICOM files.

One ledger ties DVC (which bytes), git (which code), Prefect (which run) and MLflow (which records)
together.

Files, in the order in which data meets them:
    ledger.py   append-only JSON lines in .lapvqa/ledger.jsonl, one per finished stage
    origins.py  how an artefact came to be: dvc.lock joined with the ledger
    walk.py     what a person asks about, and the walk upstream from it

Pitfalls
    Run ids never stand inside an output (its hash would change on every run); the join goes by
    stage and md5, so a result restored from DVC's cache still maps to the run that made it.
    Nothing here imports dvc, prefect, mlflow or torch: `lapvqa lineage` must answer in a moment
    and must work while DVC holds its locks.
"""
