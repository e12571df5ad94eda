"""Report generation: the decoder and a head that write, the findings they assert, their scores.

Files, in the order in which data meets them:
    task.py     the record: how it is scored, its lines in the comparison, its words for the page
    decoding.py the reports that the caption decoder writes
    judge.py    lets the caption decoder write, trains a head per encoder, lets it write
    heads.py    ``ReportGenerationHead``, as published
    scoring.py  BLEU, ROUGE, METEOR and the F1 of findings of predictions

Contracts
    Scoring sees predictions only. The truth of a study is what its archive labels; where no study
    has labels, it is what the labeler finds in the reference text. Scoring knows no torch.

Pitfalls
    * BLEU-4 moves by points with the tokenisation: the protocol in metrics.json names it.
    * A text-based F1 measures the labeler too: on the most common report it is not zero by nature.
    * References are whole texts. Cutting them where the model's output ends flatters every score.
"""
