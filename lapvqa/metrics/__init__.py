"""Metrics: arrays in, numbers with intervals out. No torch, no files.

Contract
    A metric is a *statistic*: a function of per-sample weights, ``[draws, samples] -> [draws, k]``.
    All weights 1 gives the observed value; a bootstrap draw is the same call with the number of
    times each sample's patient was drawn. One code path computes value and interval.

    A *panel* names the columns of a statistic; panels of the same samples stand side by side.
    Each metric has a record: implementation, version, tokens, empty outputs (``record``).

Rooms within
    Statistics: bootstrap, comparison, delong. Classes: auc, average_precision, calibration.
    Texts: text, cider, generation, meteor, weights, answers, findings. Boxes: detection, coco,
    grounding, overlap. Packages beyond the runtime are imported on use; without them, and
    without weights, a metric is undefined with the reason.

Pitfalls
    * An undefined value is NaN inside this room and null in every file; it is never 0.
    * Samples of one patient are not independent: intervals resample patients, not images.
    * Systems are compared on the same draws (paired); comparing two intervals is no test.
"""
