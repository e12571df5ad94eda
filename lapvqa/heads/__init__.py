"""What the task heads share: they never import each other, so it lies here.

``head``
    the base of all heads: published file form, check of features, initial weights
``text``
    the base of the heads that write: embeddings, torch's decoder layers, loss, greedy search
``incremental``
    one step of torch's decoder layer over kept keys and values
``teaching``
    questions and answers as a batch; prompts grouped by length
``boxes``
    box forms, IoU and GIoU of tensors
``checkpoint``
    files of heads in the published forms, written and read

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
