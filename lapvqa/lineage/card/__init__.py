"""Model card and datasheet, made from the ledger alone: same ledger, same bytes.

Every value names the place in the ledger that it comes from, and a checker reads the finished page
and holds each against it. What the ledger does not say stands there as "not recorded".

Files, in the order in which data meets them:
    fact.py         a value of the ledger, its place, and how it is written
    page.py         headings, paragraphs, tables of facts
    document.py     what a card says of a model
    change.py       what changed since the model before it
    markdown.py     the page as Markdown, with Hugging Face's model-index
    html.py         the page as HTML, with card.html
    check.py        every number of a finished page held against the ledger

Pitfalls
    A number that is computed here (a sum, a difference) has no place in the ledger and may not
    stand in a card: record it when the stage runs.
"""
