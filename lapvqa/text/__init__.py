"""Text: which words of a report are the target, and their GPT-2 token ids.

Files, in the order in which data meets them:
    phi.py           protected health information in a report's text; serves ingest
    tokens.py        the stage: one row of tokens per study, or one row of rejects
    token_store.py   finished shards, kept outside DVC's outputs
    languages.py     the tables of words in params/reports, and which one a report is read by
    sections.py      the sections of a report, and which of them are the target text
    laterality.py    whether a text names a side of the body
    bpe.py           texts to ids: tiktoken from the packaged rank table
    labeler.py       the findings a text asserts, by rules; CheXpert's label names
    report_languages.py  how many reports each language has, how long, how much is cut
    coverage.py      how much text reached the model, for `lapvqa status`

Contracts
    Offsets are characters of the report as stored in studies.parquet, never of a cleaned copy.
    A target is one line: white space collapsed, ``___`` (a de-identified span) kept.
    Ids are uint16, between two 50256; 50256 never occurs inside. They spell the target, or its
    beginning where ``truncated``: checked for every row of every run.
    Every study leaves the stage as one row of tokens or one row of rejects; tokens in are tokens
    kept and tokens cut. Both sums are checked against the written files.
    A shard never changes. The set of rows depends on the studies alone; which rows share a file
    depends on the order of arrival too, so readers order by study key.

Pitfalls
    ``tiktoken.get_encoding("gpt2")`` asks the network; use ``bpe.encoding()``.
    The section rules are those that MIMIC-CXR's own tables were made with, oddities included:
    see ``sections``.
"""
