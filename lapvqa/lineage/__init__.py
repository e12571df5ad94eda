"""Where a result came from, and whether it is still current.

Purpose
    One ledger ties DVC (what bytes), Prefect (which run) and MLflow (which records) together;
    the walk goes from any result up to the inventory of the DICOM files.
Contracts
    ``ledger``     append-only JSON lines in .lapvqa/ledger.jsonl, one per finished stage
    ``stagefile``  dvc.yaml expanded and dvc.lock read, without importing DVC
    ``hashes``     md5 of a file or folder, equal to what DVC writes into dvc.lock
    ``graph``      the walk upstream from a file, a metric or a run id
Pitfalls
    Run ids never stand inside an output (its hash would change on every run); the join goes by
    stage and md5, so a result restored from DVC's cache still maps to the run that made it.
    Nothing here imports dvc, prefect, mlflow or torch: `lapvqa status` must answer in a moment
    and must work while DVC holds its locks.
"""
