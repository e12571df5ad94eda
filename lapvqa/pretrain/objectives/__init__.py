"""The objectives: what a training learns, one file each.

Files, in the order in which data meets them:
    table.py        their names
    objective.py    what an objective is: the loss of a step, and its measures of validation
    captioning.py   to write the report
    contrastive.py  to tell which report belongs to which image: InfoNCE, pairwise sigmoid
    coca.py         both in one pass

Contracts
    Nothing outside this folder asks which objective it has: trainer, memory plan, FLOPs, samples
    and card ask the objective, or its model (``pretrain.model.MODELS``).
    A step's global batch may be cut over ranks and micro-batches; loss and gradient are those of
    the batch in one piece, to rounding.

Pitfall
    A loss that needs all embeddings of a step is computed twice per micro-batch (GradCache).
"""
