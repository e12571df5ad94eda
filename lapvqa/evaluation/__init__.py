"""Evaluations: how good are encoders, by nine tasks under one contract.

Files, in the order in which data meets them:
    task_table.py         the table: a line per task
    task.py               the record of one task: what the code outside its folder knows of it
    evaluate.py           one task on one set of encoders: what a judge is handed
    external_encoders.py  encoders of others: their names, their folders of results
    image_encoder.py      an encoder as the evaluations see it: stored pixels in, tokens out
    encoders/             others' encoders: which folders are read, how they see the image
    features.py           features of encoders, computed once per encoder and image
    visual_tokens.py      images as tokens of one encoder, frozen or trained with the head
    head_training.py      one loop that trains every task's heads
    report_studies.py     the archive's studies with a film and a report
    writing.py            heads that write: samples, loss, greedy texts
    answering.py          the question tasks' common judge
    answer_scoring.py     metrics of answers, for both question tasks
    prediction_rows.py    predictions by system: one system's rows in order, a curve for each
    sealed.py             which test patients nobody gets to see
    contamination.py      are test images known to the training of the encoders
    contract.py           predictions first, metrics and curves from predictions alone
    differences.py        two systems on the same samples: each metric's difference and its p
    results.py            the files of a result folder, and the one reader of metrics.json
    compare.py            encoders beside each other, over all tasks

Contract
    An evaluation = a reader, encoders, a head, a deterministic recipe. It writes
    results/<task>/predictions.parquet first: one row per sample and system, with the protocol in
    the file's metadata. metrics.json and curves.csv are then made from that file, read back from
    the disk, and from ``evaluate.common`` alone: a metric can be corrected without a GPU, and
    anybody's predictions can be scored by the same code.
    A task is a folder beside this one (task.py, judge.py, scoring.py, heads.py) and a line in the
    table; docs/extending.md adds one. Records and scoring import no torch. A task's folder never
    imports the table, which would make it depend on all others.

Pitfalls
    * Choices (a regularisation, a threshold) are made on validation patients; test patients are
      predicted once.
    * Every system predicts the same samples, or differences would mean nothing: checked.
    * Data that is not there gives ``"status": "not computed"`` with the reason, never a number.
"""
