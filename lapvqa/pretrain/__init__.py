"""Pretraining: a ViT and a small text decoder that learn to write the report of an image.

``encoder`` ``decoder`` ``model``
    the networks; ``model`` is the published import path
``corpus`` ``vocabulary`` ``parallel`` ``loss`` ``optimizer`` ``checkpoint`` ``device`` ``train``
    the stage pretrain: one visible loop with an exact resume
``files`` ``export``
    weights on disk, with the sizes that belong to them in card.json
``generate``
    greedy captions from a trained model

Contracts
    Parameter names of the encoder are timm's, so a ViT-L/14 state dict loads unchanged.
    Images enter as float32 [B, 1 or 3, S, S], normalised by ``lapvqa.data.transforms``.
    Weights files are plain state dicts, read with ``weights_only=True``.
    The same parameters and data give the same bytes, however often the run was killed.

Pitfalls
    The bits of a result depend on the number of threads (pretrain.cpu_threads) and on the
    processor: a sum over another partition rounds differently. Equal machine, equal bytes.
    Training works on a vocabulary cut to the tokens that occur (``vocabulary``); what is written
    to disk has all 50257 rows again.
"""
