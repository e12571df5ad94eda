"""Is there anything to do, and why? Told from the project alone, in a moment.

Files, in the order in which data meets them:
    stagefile.py      dvc.yaml expanded and dvc.lock read, without importing DVC
    hashes.py         md5 of a file or a folder, as DVC writes it into dvc.lock
    input_folders.py  the input folders beside what the last run listed of them
    manifest.py       .lapvqa/uptodate.json: what the last run left, so that a check reads little
    staleness.py      the question itself: each stage, stale or not, with the reasons

Contracts
    The verdict is that of `dvc status`; where it cannot be told here, it is "not known" and DVC
    decides. The manifest holds no verdict: without it the answer is the same, and takes longer.

Pitfalls
    `lapvqa run` with nothing to do answers before anything heavy is loaded: no torch, prefect,
    mlflow, dvc, pyarrow or pydantic at module level here.
"""
