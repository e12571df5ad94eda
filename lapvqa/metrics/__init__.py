"""Metrics: arrays in, numbers with intervals out. No torch, no files.

Contract
    A metric is a *statistic*: a function of per-sample weights, ``[draws, samples] -> [draws, k]``.
    All weights 1 gives the observed value; a bootstrap draw is the same call with the number of
    times each sample's patient was drawn. One code path computes value and interval.

Pitfalls
    * An undefined value is NaN inside this room and null in every file; it is never 0.
    * Samples of one patient are not independent: intervals resample patients, not images.
    * Systems are compared on the same draws (paired); comparing two intervals is no test.
"""
