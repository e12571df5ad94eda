"""Whether a candidate may take the champion's place: a rule written down before, and a verdict.

Arithmetic alone: nothing here moves an alias, and no stage asks it yet (docs/decisions/0034).

Files, in the order in which data meets them:
    reserve.py  which newly arrived patients are kept for the sealed test set
    budget.py   how much error a test set may still be asked for, and what a look costs
    verdict.py  the rule applied to the evidence: PROMOTE, REJECT or INCONCLUSIVE

Contracts
    The sealed test set gives a verdict and no numbers: whoever steers by its numbers spends it.
    Every look is paid for before the evidence is read, and kept in the ledger whatever comes of it.

Pitfalls
    One test set asked again and again promotes what fits it by chance; benchmarks/bench_gate.py
    shows by how much, and what this rule leaves of it.
"""
