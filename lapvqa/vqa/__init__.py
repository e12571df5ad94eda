"""Visual question answering: one image, one question, an answer in words.

Files, in the order in which data meets them:
    task.py   the record: its data, how it is scored, its words for the page
    judge.py  the reader and the head; the rest is ``lapvqa.evaluation.answering``
    model.py  ``VQAHead``, as published

Contracts
    The text is begin, question, answer, end; the loss sees answer and end. 150 positions hold them.

Pitfalls
    * All questions of one call to ``generate`` have the same number of tokens: group them with
      ``lapvqa.heads.teaching.by_length``.
    * Nothing separates question and answer: train and ask with the same last token (a line feed at
      the end of the question, say).
"""
