"""The page a person reads, reports/index.html, and the pictures beside it.

Files, in the order in which data meets them:
    page.py            the stage: reads what the other stages wrote, fills page.html
    archive_counts.py  counts of what came in and what was taken
    model_card.py      card.json in words
    page_results.py    results as the page shows them: names, order, words
    sections.py        one section per evaluation: its chart and its examples
    patients.py        whose films and texts may be shown
    examples.py        which samples are shown, and their pictures
    text_examples.py   answers to questions, and reports with their findings
    box_examples.py    detected findings and grounded phrases, as boxes over a picture
    charts.py          which figure shows which result, and the points of its curves
    figures.py         figures as HTML and inline SVG; no plotting library
    task_pictures.py   one SVG per evaluation, for viewers that show no page
    freshness.py       how it stayed fresh: a page beside it, from the ledger
    comparison.py      the comparison of encoders as JSON, CSV and SVG (`lapvqa evaluate`)

Contracts
    One self-contained file that asks the network for nothing; the same inputs give the same bytes
    (no time, no run id, no absolute path inside); every text is escaped; only keyed hashes of
    studies appear, never an identity or a path of the archive.

Pitfalls
    * What the ledger says changes with each run, the stage report's own too: it stands on pages
      of its own beside this one, which no stage makes.
    * A metric may be null (undefined) and an evaluation may say "not computed"; both are shown,
      never dropped.
"""
