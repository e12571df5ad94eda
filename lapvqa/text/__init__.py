"""Text: which words of a report are the target, and their GPT-2 token ids.

``sections`` finds the sections of a report and chooses the target text, ``laterality`` says whether
it names a side, ``fast_bpe`` encodes many texts at once (``bpe``, tiktoken from the packaged rank
table, is the reference; ``bpe_kernels`` its inner loops), ``store`` keeps finished shards,
``tokens`` is the stage that joins them, ``coverage`` counts what came of it. ``identity`` looks for
identifying text and serves ingest.

Contracts
    Offsets are characters of the report as stored in studies.parquet, never of a cleaned copy.
    A target is one line: white space collapsed, ``___`` (a de-identified span) kept.
    Ids are uint16 and stand between two 50256; 50256 never occurs inside. They spell the target,
    or its beginning where ``truncated``: checked for every row of every run.
    Every study leaves the stage as one row of tokens or one row of rejects; tokens in are tokens
    kept and tokens cut. Both sums are checked against the written files.
    A shard never changes. The set of rows depends on the studies alone; which rows share a file
    depends on the order of arrival too, so readers order by study key.

Pitfalls
    ``tiktoken.get_encoding("gpt2")`` asks the network; use ``bpe.encoding()``.
    The section rules are those that MIMIC-CXR's own tables were made with, oddities included:
    see ``sections``.
"""
