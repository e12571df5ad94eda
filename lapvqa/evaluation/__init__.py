"""Evaluations: how good is the frozen encoder, by seven tasks under one contract.

Contract (``contract.py``)
    An evaluation = a reader, the frozen encoder, a head, a deterministic recipe. It writes
    results/<task>/predictions.parquet first: one row per sample and system, with the protocol in
    the file's metadata. metrics.json and curves.csv are then made from that file, read back from
    the disk, and from ``evaluate.common`` alone: a metric can be corrected without a GPU, and
    anybody's predictions can be scored by the same code.
    One file per task; its ``run`` is the stage, its ``EVALUATION`` says how predictions are scored.

Pitfalls
    * Choices (a regularisation, a threshold) are made on validation patients; test patients are
      predicted once.
    * Every system predicts the same samples, or differences would mean nothing: checked.
    * Data that is not there gives ``"status": "not computed"`` with the reason, never a number.
"""
