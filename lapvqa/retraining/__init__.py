"""When the encoder is trained anew: what asks for it, what decides, and that it happens once.

Files, in the order in which data meets them:
    clock.py      when the clock asks: cron, time zones, one catch-up after downtime
    pause.py      may anything begin by itself?
    arrivals.py   what has come into the archive since
    wanted.py     why a training is wanted: one record, to which causes add up
    calendar.py   when no training may begin
    situation.py  all that a decision looks at
    decision.py   the decision, a function of nothing but situation, rule and time
    minutes.py    decisions and rounds in the ledger, and the hours that trainings cost
    lease.py      one round at a time, whatever machine works on it
    performance.py  has the champion become worse on new patients?
    rounds.py     a round from its causes to its outcome, cut off and resumed
    starts.py     weights that a training may go on from

Contracts
    A cause is on disk before its trigger goes on, and leaves the record only when a training has
    begun after it, or a decision in the ledger says why not.
    Every decision, the "no" too, stands in the ledger with what it looked at.

Pitfalls
    Times here are aware of their zone: a freeze and a month begin where the machine stands.
    Nothing here imports dvc, prefect, mlflow or torch: a scheduler that waits must cost nothing.
"""
