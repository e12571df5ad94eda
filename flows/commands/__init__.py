"""The commands of ``lapvqa``, one file each, imported only when they are asked for.

Contracts
    A command is ``execute(root, ...) -> int`` (the exit code). Errors for the reader are
    LapvqaErrors; ``flows.cli`` prints them.
    ``project`` finds the folder, ``screen`` prints, ``settings`` edits params.yaml and local.yaml,
    ``running`` sees what is at work, ``outcome`` shows what came out.
Pitfalls
    Importing torch, prefect or mlflow takes seconds each: `lapvqa --help`, and a run with nothing
    to do, must not import them. Put such imports inside the function that needs them.
"""
