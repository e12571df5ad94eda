"""Metrics of words: generated reports and short answers.

Files, in the order in which data meets them:
    ngrams.py         BLEU, ROUGE and CIDEr-D
    meteor.py         METEOR, where Java and its jar are
    neural.py         CheXbert, RadGraph and BERTScore, where their weights are
    finding_f1.py     F1 of sets of findings
    short_answers.py  exact match and token F1 of answers
"""
