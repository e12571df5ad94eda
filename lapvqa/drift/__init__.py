"""Has what arrives changed? Windows of new studies against a frozen reference, by patient.

A look asks for an evaluation, never for a training: that inputs moved says nothing of performance.

Files, in the order in which data meets them:
    arrivals.py     when each study arrived, and from where
    reference.py    the frozen reference: its studies, its digest, what an erasure took from it
    window.py       which studies are compared: new ones, the same months, nobody on both sides
    streams.py      what is compared: films by view and source, tags, rejects, texts, findings
    greys.py        a film's greys in ten numbers: noise that a small input averages away
    permutation.py  the null distribution by permuting patients, and p, whatever the statistic
    features.py     MMD of films' numbers; the classifier that explains it; the shift it would see
    shares.py       PSI and TV of shares
    looks.py        looks in the ledger, and those that could not be taken
    spending.py     how much error a look may spend, by the time since the last one
    compare.py      the streams compared: Holm over all, alarms explained, the drift named
    look.py         one look: what arrived, what it may spend, the report, the ledger

Contracts
    * The patient is the unit: whoever permutes images takes a series of one patient for drift.
    * All looks together raise at most ``drift.false_alarms_per_year`` false alarms a year, however
      many there are: the level of a look grows with the time since the last one.
    * What cannot be compared (too few patients) is named in the report, and costs nothing.

Pitfalls
    * Features of films that an encoder was trained on differ from those of new films: they are
      left out on both sides.
    * Winter is no drift: with a year of reference, a window meets the same months.
"""
