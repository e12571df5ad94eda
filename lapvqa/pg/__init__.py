"""Phrase grounding: the one box that a phrase speaks of, on MS-CXR.

Files, in the order in which data meets them:
    task.py     the record: its data, how it is scored, its words for the page
    judge.py    reads MS-CXR, trains a head per encoder, predicts
    heads.py    ``VisualGroundingHead``, as published, and its loss
    scoring.py  mIoU, accuracies and the pointing game of predictions

Contracts
    A phrase is one vector of whatever text encoder the caller states, width ``txt_dim``. Boxes are
    (cx, cy, w, h) in [0, 1] of the image that the encoder saw.

Pitfalls
    * The head gives exactly one box. A phrase with several is the reader's to resolve, and to say.
    * The text token has no place among the visual ones: order and number of these do not matter to
      it, but the encoder's features must carry their place.
"""
