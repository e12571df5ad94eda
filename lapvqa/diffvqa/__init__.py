"""Difference VQA: a question about what changed from a reference image to the current one.

Files, in the order in which data meets them:
    task.py   the record: its data, how it is scored, its words for the page
    judge.py  the reader and the head; the rest is ``lapvqa.evaluation.answering``
    model.py  ``DiffVQAHead``, as published

Contracts
    Frame 0 is the reference (earlier) image, frame 1 the current one; the reference's tokens come
    first. The text is begin, question, answer, end in 200 positions; the loss sees answer and end.

Pitfalls
    * ``generate`` takes the current image first, the memory holds the reference first.
    * Swapped images give fluent answers to the opposite question: check the dates of a pair.
    * Questions of one call have the same number of tokens, as in ``lapvqa.vqa``.
"""
