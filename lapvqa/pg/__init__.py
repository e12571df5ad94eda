"""Phrase grounding: the one box that a phrase speaks of.

``heads``
    ``VisualGroundingHead``, as published, and its loss

Contracts
    A phrase is one vector of whatever text encoder the caller states, width ``txt_dim``. Boxes are
    (cx, cy, w, h) in [0, 1] of the image that the encoder saw.

Pitfalls
    * The head gives exactly one box. A phrase with several is the reader's to resolve, and to say.
    * The text token has no place among the visual ones: order and number of these do not matter to
      it, but the encoder's features must carry their place.
"""
