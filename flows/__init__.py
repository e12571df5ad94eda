"""Prefect flows: composition only. What runs is dvc.yaml's; how one stage runs is in ``tasks``.

``run``
    ``run_pipeline``: the entry for the command line; light to import, starts the server first
``pipeline`` ``stages``
    the pipeline flow, and one flow per stage; importing them imports Prefect
``schedule``
    the pipeline by the clock
``cli``
    the command line

Contracts
    A flow's only parameter is the project's folder: Prefect stores parameters for all to read.
    Flows hold the run lock of the project, whoever starts them (a person, the scheduler).

Pitfalls
    Prefect reads its settings on import: import ``run``, not ``pipeline``, where no server has
    been started yet.
"""
