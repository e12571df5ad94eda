"""Retrieval: a study's report found by its film, and its film by the report.

Files, in the order in which data meets them:
    task.py       the record: its words for the page
    judge.py      the archive's studies, features of each encoder, ranks, protocol
    linear_map.py words of a report predicted from a film's features by one ridge regression
    scoring.py    recall at 1, 5 and 10, and the mean reciprocal rank, both ways

Contracts
    One recipe for every encoder, whatever it was trained for: what its features say linearly of the
    words of the report. Penalty and words are chosen without the test patients. A study is one
    frontal film, the first by key, as in report generation.

Pitfalls
    * Normal films share a report word for word. Any report of equal words is right.
    * Recall at k depends on how many there are to choose from: the protocol has the number, and
      what chance gives. Numbers of two archives do not compare.
    * Patients sealed for the gate are ranked among themselves, so that no number is made of them.
"""
