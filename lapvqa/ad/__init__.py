"""Abnormality detection: boxes of VinDr-CXR's 14 findings, found by a small DETR.

Files, in the order in which data meets them:
    task.py     the record: its data, how it is scored, its words for the page
    judge.py    reads and decodes VinDr-CXR, trains a head per encoder, predicts
    heads.py    ``DetectionHead`` and ``predict``, as published; matching and losses of DETR
    scoring.py  average precision of predictions

Contracts
    Boxes are (cx, cy, w, h) in [0, 1] of the image that the encoder saw; ``predict`` returns xyxy.
    Class 14 is background. An image without findings is a target without boxes, never left out.

Pitfalls
    * The published file says num_enc and num_dec; the constructor num_enc_layers, num_dec_layers.
    * Twenty queries find at most twenty boxes: ``DetectionLoss.num_unmatched`` counts the others.
    * Boxes carry no place in the native image: undo scale and offset of the stored one.
"""
