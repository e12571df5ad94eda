"""Prefect tasks: thin wrappers that put records, limits and locks around one call each.

``stages`` ``process`` ``guard``
    one stage as a child `dvc repro -s`, streamed, in a process group that never outlives us
``dvc_graph``
    what there is to run and what is stale, asked of DVC in this process
``embedded`` ``prefect_server``
    the Prefect server of one run: embedded by default, somebody else's by configuration
``records`` ``streaming`` ``spool`` ``shipping`` ``mlflow_store`` ``registry`` ``encoder_pyfunc``
    MLflow: runs, metrics while they come, what waits on disk, how it gets there, where it is,
    the registered encoder
``lineage`` ``results``
    the ledger's entries; the tables and links that Prefect's pages show
``steps`` ``session`` ``display`` ``prefect_task``
    the other tasks of a run; what all share; what a person sees meanwhile

Contracts
    DVC is the only cache and dvc.yaml the only graph: no task decides what is up to date.
    Tasks are given names and paths, never arrays or models (Prefect hashes every argument).
    The library below knows nothing of this; `dvc repro` alone leaves the same dvc.lock.

Pitfalls
    Prefect and MLflow read their settings on import: ``embedded`` and ``mlflow_store`` set the
    environment first, so nothing here imports either of them at module level unless the flow
    run already exists (``stages`` and the modules of the flows do).
    MLflow may be down: a run goes on, its records wait in .lapvqa/spool (``spool``).
    A Prefect server that stops too early loses task runs: ``embedded.settle`` before the exit.
"""
