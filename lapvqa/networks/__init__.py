"""The networks: their layers, losses and searches, their weights on disk, and where they compute.

Files, in the order in which data meets them:
    device.py         where and how torch computes: device, precision, threads, batches
    unusable_gpu.py   a GPU that torch cannot use, said
    allocation_counter.py  the bytes that torch allocates, by purpose
    encoder.py        images to visual tokens: a ViT with timm's parameter names
    vocabulary.py     GPT-2 ids to numbers of the tokens that occur, and back
    decoder.py        visual tokens and earlier words to the next word
    text_encoder.py   a report to one vector
    losses.py         next-token cross-entropy, InfoNCE, pairwise sigmoid
    generation.py     captions by greedy or beam search
    weights.py        state dicts as files, read safely under any of their names

Contracts
    Parameter names of the encoder are timm's, so a ViT-L/14 state dict loads unchanged.
    Images enter as float32 [B, 1 or 3, S, S], normalised by ``lapvqa.images.transforms``.
    Nothing here knows a stage: pretraining, export and the heads build on this room.

Pitfalls
    Layers leave their weights unset (``encoder.Linear``): a model initialises all of them once.
    The bits of a result depend on the number of threads and on the processor: a sum over another
    partition rounds differently.
"""
