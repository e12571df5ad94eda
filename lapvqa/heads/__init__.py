"""Parts that the task heads share: the heads never import each other.

Files, in the order in which data meets them:
    head.py        the base of all heads: published file form, check of features, initial weights
    teaching.py    prompts and answers as batches; prompts grouped by length
    text.py        the base of the heads that write: decoder, loss, greedy search, cut vocabulary
    boxes.py       box forms, IoU and GIoU of tensors
    training.py    how every head is trained: AdamW, warm-up and cosine, the best epoch
    checkpoint.py  files of heads in the published forms, written and read

Contracts
    A head sees features of an encoder, never images; whether gradients reach the encoder is decided
    by whoever makes the features. Boxes are (cx, cy, w, h) in [0, 1] of the stored image unless a
    name says xyxy. What the published cards leave open is decided in docs/decisions/0015-heads.md.

Pitfalls
    * ``nn.TransformerDecoder`` copies its first layer: without ``init_layers`` all start equal.
    * A head's file says neither its activation nor, for detection and grounding, its number of
      attention heads: weights of another choice load and compute nonsense.
    * ``generate`` ignores dropout; ``forward`` of a head in train mode does not.
"""
