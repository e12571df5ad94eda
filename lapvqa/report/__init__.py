"""The page a person reads: reports/index.html.

``page`` is the stage: it reads what the other stages wrote, builds one object per section and
fills ``page.html``. ``results`` holds the metrics; ``charts`` says which figure shows what,
``curves`` makes points of predictions and history, ``figures`` draws them (HTML and SVG, no
plotting library); ``examples`` picks studies and compares findings; ``archive`` counts what came
in.

Contracts: one self-contained file that asks the network for nothing; the same inputs give the
same bytes (no time, no run id, no absolute path inside); every text is escaped; only keyed
hashes of studies appear, never an identity or a path of the archive. Pitfalls: a metric may be
null (undefined) and an evaluation may say "not computed"; both are shown, never dropped.
"""
