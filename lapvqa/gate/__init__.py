"""Whether a candidate may take the champion's place: a rule written down before, and a verdict.

Here is decided and written down; the alias itself is moved by ``tasks.promotion``, on a verdict.

Files, in the order in which data meets them:
    endpoints.py   the rule's endpoints: an evaluation's metric, sealed or shown
    contenders.py  candidate, champion and anchor, and whether their predictions may be used
    budget.py      how much error a test set may still be asked for, and what a look costs
    looks.py       the looks that were taken, in the ledger
    slices.py      view, sex, age band, source: where a candidate must not be worse
    evidence.py    differences on the same patients, with their errors
    verdict.py     the rule applied to the evidence: PROMOTE, REJECT or INCONCLUSIVE
    judge.py       one gate, from the predictions to a signed verdict
    champions.py   who is champion and who was, and what a killed gate left to be done
    sealing.py     a sealed share opened

Contracts
    The sealed test set gives a verdict and no numbers: whoever steers by its numbers spends it.
    Every look is paid for before the evidence is read, and kept in the ledger whatever comes of it.
    What can be refused without comparing scores costs nothing: also a metric that has no value.
    Which patients are sealed: ``lapvqa.evaluation.sealed``.

Pitfalls
    One test set asked again and again promotes what fits it by chance; benchmarks/bench_gate.py
    shows by how much, and what this rule leaves of it.
"""
