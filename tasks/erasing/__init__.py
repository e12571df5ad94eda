"""Erasure where DVC and MLflow keep copies: what ``lapvqa.erasure`` must not import.

Files, in the order in which data meets them:
    dvc_store.py      single objects of DVC's cache and remotes, by hash
    mlflow_store.py   bytes of runs that were deleted before; versions of affected models marked

Pitfalls
    `dvc gc` would take every version that the workspace does not use, not the patient's alone.
    MLflow's delete_run keeps database rows and artefacts until `mlflow gc`.
"""
