"""Prefect flows: composition only. What runs is dvc.yaml's; how one stage runs is in ``tasks``.

`lapvqa run`, from the command to a finished stage: cli.py, commands/run.py, then tasks/work.py,
whose child process is lapvqa/stage.py; pipeline.py follows it.

Files, in the order in which data meets them:
    __main__.py  `python -m flows` is `lapvqa`
    cli.py       the command line: options and help
    commands/    what each command does
    try_page/    the page of `lapvqa try`
    pipeline.py  the pipeline as one Prefect flow, and one flow per stage
    retraining.py  when the pipeline runs anew: decide, train, ask the gate

Contracts
    A flow's only parameter is the project's folder: Prefect stores parameters for all to read.
    Flows hold the run lock of the project, whoever starts them (a person, the scheduler).

Pitfalls
    Prefect reads its settings on import, and importing ``pipeline`` imports Prefect: start through
    ``commands.run.run_pipeline``, which starts the server first.
"""
