"""Pretraining: a ViT that learns to write, or to recognise, the report of an image.

``encoder`` ``decoder`` ``text_encoder`` ``model``
    the networks; ``model`` is the published import path
``loss`` ``contrast`` ``objective``
    the losses of the three objectives, whole however a step is cut
``corpus`` ``vocabulary`` ``inputs`` ``parallel``
    what a step reads, and how it becomes what a model takes
``train`` ``trainer`` ``optimizer`` ``checkpoint`` ``history`` ``random_state`` ``samples``
    the stage pretrain: one visible loop with an exact resume
``device`` ``distributed`` ``launch`` ``worker``
    where it computes: one process, or several under torchrun
``monitor`` ``memory`` ``ledger`` ``replay``
    how fast it is, what it needs, and a stretch of it again
``files`` ``exchange`` ``standalone`` ``export``
    weights on disk, with the sizes that belong to them in card.json
``generate`` ``beam``
    captions by greedy or beam search over one static cache

Contracts
    Parameter names of the encoder are timm's, so a ViT-L/14 state dict loads unchanged.
    Images enter as float32 [B, 1 or 3, S, S], normalised by ``lapvqa.images.transforms``.
    Weights files are plain state dicts, read with ``weights_only=True``.
    The same parameters and data give the same bytes, however often the run was killed.

Pitfalls
    The bits of a result depend on the number of threads (pretrain.cpu_threads), of processes, and
    on the processor: a sum over another partition rounds differently. Equal machine, equal bytes.
    Training works on a vocabulary cut to the tokens that occur (``vocabulary``); what is written
    to disk has all 50257 rows again.
"""
