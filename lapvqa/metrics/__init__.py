"""Metrics: arrays in, numbers with intervals out. No torch, no files.

Files, in the order in which data meets them:
    classification.py  classes against binary targets: AUROC, average precision, calibration
    boxes/             boxes in images: detection, phrase grounding
    texts/             words: reports, short answers, findings
    panel.py           named statistics of the same samples, side by side
    bootstrap.py       values and intervals, patients resampled
    replicates.py      heads that differ in their seed alone, and their mean
    paired.py          two systems on the same samples: bootstrap difference, DeLong's test
    record.py          how each metric is computed, in words

Contract
    A metric is a *statistic*: a function of per-sample weights, ``[draws, samples] -> [draws, k]``.
    All weights 1 gives the observed value; a bootstrap draw is the same call with the number of
    times each sample's patient was drawn. One code path computes value and interval.

    A *panel* names the columns of a statistic; panels of the same samples stand side by side.
    Each metric has a record: implementation, version, tokens, empty outputs (``record``).

    The files here serve every evaluation; ``classification``, ``boxes`` and ``texts`` those that
    need them, and nothing else imports them. Packages beyond the runtime are imported on use;
    without them, and without weights, a metric is undefined with the reason.

Pitfalls
    * An undefined value is NaN inside this room and null in every file; it is never 0.
    * Samples of one patient are not independent: intervals resample patients, not images.
    * Systems are compared on the same draws (paired); comparing two intervals is no test.
"""
