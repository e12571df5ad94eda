"""The stored image: a square of 384 x 384 pixels, where it lies, and how a model is given it.

Files, in the order in which data meets them:
    geometry.py       fits a native image into the square, and maps boxes both ways
    area.py           kernels of exact area averaging
    shards.py         data/images/*.arrow, written and read
    report_pairs.py   pairs of a frontal image and its report's tokens, and batches of them
    transforms.py     stored pixels to a model's input, on the device; augmentation

Contracts
    A stored image is uint8 [384, 384]: content in the top-left 378 x 378 (27 patches of 14),
    zeros elsewhere.

Pitfalls
    The six pixels 378..383 are always padding: a stride-14 patch embedding drops them. A shard is
    memory-mapped, so a row costs one copy and no decoding; never edit a shard in place.
"""
