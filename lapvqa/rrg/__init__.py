"""Report generation: the head that writes, what a report says, and how it is scored.

``heads``
    ``ReportGenerationHead``, as published; the only module here that imports torch
``labeler``
    the findings a text asserts, by rules; CheXpert's label names
``scoring``
    from rows of ``schemas.RRG_PREDICTIONS`` to BLEU, ROUGE and the F1 of findings

Contracts
    Scoring sees predictions only. The truth of a study is what its archive labels; where no study
    has labels, it is what the labeler finds in the reference text. Scoring knows no torch.

Pitfalls
    * BLEU-4 moves by points with the tokenisation: the protocol in metrics.json names it.
    * A text-based F1 measures the labeler too: on the most common report it is not zero by nature.
    * References are whole texts. Cutting them where the model's output ends flatters every score.
"""
