"""Prefect tasks: thin wrappers that put records, limits and locks around one call each.

Files, in the order in which data meets them:
    session.py         what the tasks of one run share, and the decorator of all of them
    display.py         what a person sees meanwhile
    prefect_deployment.py  the flow retraining for workers of a server that others keep
    prefect_server.py  the Prefect server of one run: embedded, or somebody else's
    prefect_flow.py    a flow run there, or without it
    prefect_calls.py   calls to it, none of which stops the work
    prefect_history.py what it has missed, told afterwards
    prefect_private.py the names of Prefect that nobody promised
    dvc_repository.py  DVC in this process: the graph, what is stale, files cut off by a kill
    dvc_private.py     the names of DVC that nobody promised
    work.py            the work of a run: what is stale, each stage run, whoever follows told
    side_by_side.py    independent stages at the same time
    ingest_on_dask.py  ingest's files read by a Dask cluster beforehand
    child_process.py   one stage's `dvc repro -s`, streamed, which never outlives us
    prefect_tasks.py   the tasks: follow each stage at work, keep records, show results
    ledger_lines.py    the ledger's entries, also of stages that a bare `dvc repro` ran
    judging.py         one encoder by one evaluation, recorded
    champion.py        the champion's version in the registry, or that it is not there
    promotion.py       the gate asked, and the alias ``champion`` moved on its verdict
    erasing/           erasure where DVC and MLflow keep copies
    mlflow_records/    MLflow: runs, metrics while they come, what waits on disk, the encoder
    mlflow_private.py  the names of MLflow that nobody promised
    settling.py        what a run owes at its end, made up for if it was killed
    results.py         the tables that Prefect's pages and the terminal show

Contracts
    DVC is the only cache and dvc.yaml the only graph: no task decides what is up to date.
    Tasks are given names and paths, never arrays or models (Prefect hashes every argument).
    The work asks no server anything; what keeps records follows it, and may be late or never come.
    The library below knows nothing of this; `dvc repro` alone leaves the same dvc.lock.

Pitfalls
    Prefect and MLflow read their settings on import: ``prefect_server`` and
    ``mlflow_records.connection`` set the environment first, so nothing here imports either of them
    at module level unless the server has been started (``prefect_flow``, ``prefect_tasks``,
    ``ingest_on_dask``).
    MLflow may be down: a run goes on, its records wait in .lapvqa/spool.
    A Prefect server that stops too early loses task runs: call ``prefect_server.settle`` first.
    Task runs with tags ask the server for a slot each, and fail without it: ours have none.
"""
