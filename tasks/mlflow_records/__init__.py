"""MLflow's records of a pipeline run, kept on disk until MLflow has them.

The folder is not called ``mlflow``: a file of ``tasks`` started as a script would import it in
place of the package.

Files, in the order in which data meets them:
    connection.py      where MLflow is, and whether it answers
    relocation.py      the embedded store's absolute paths, after a move of the project
    records.py         the records of one run: opened, ended, closed, brought in later
    spool.py           what waits on disk
    streaming.py       a running stage's metrics on their way, and the machine's load
    shipping.py        from the spool into MLflow, without doubles
    registry.py        the exported encoder as a registered model
    signature.py       what that model takes and gives, and an example
    view.py            the table of runs as MLflow's page shows it first
    encoder_pyfunc.py  the file that MLflow runs when it loads that model

Contracts
    Runs are found by the tags ``lapvqa.run`` and ``lapvqa.stage``; shipping again adds nothing.
    No record stops the science: MLflow may be down, hang, or come and go.

Pitfalls
    MLflow reads its settings on import (3 s): ``connection.connect`` sets them first, and nothing
    here imports MLflow at module level but ``encoder_pyfunc``, which MLflow itself runs.
"""
