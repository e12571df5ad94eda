"""Data as the model sees it: the geometry of a stored image and the shards that hold them.

Contracts
    A stored image is uint8 [384, 384]: content in the top-left 378 x 378 (27 patches of 14),
    zeros elsewhere. ``geometry`` fits a native image into that square and maps boxes both ways
    (``area``: the kernels);
    ``shards`` writes and reads ``data/images/*.arrow``.
    ``dataset`` pairs images with reports, ``loader`` says which pairs a training step sees and
    reads them ahead, ``transforms`` makes the model's input of them on the device.

Pitfalls
    The six pixels 378..383 are always padding: a stride-14 patch embedding drops them. A shard is
    memory-mapped, so a row costs one copy and no decoding; never edit a shard in place.
"""
