"""Text: which words of a report are the target, and their GPT-2 token ids.

``sections`` finds the sections of a report and chooses the target text, ``bpe`` is the GPT-2
encoding built from the packaged rank table, ``tokens`` is the stage that joins the two.

Contracts
    Offsets are characters of the report as stored in studies.parquet, never of a cleaned copy.
    A target is one line: white space collapsed, ``___`` (a de-identified span) kept.
    Ids are uint16 and stand between two 50256; 50256 never occurs inside.
    Every study leaves the stage as one row of tokens or one row of rejects.

Pitfalls
    ``tiktoken.get_encoding("gpt2")`` asks the network; use ``bpe.encoding()``.
    The section rules are those that MIMIC-CXR's own tables were made with, oddities included:
    see ``sections``.
"""
