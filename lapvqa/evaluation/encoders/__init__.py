"""Encoders from elsewhere, opened as the frozen encoders that the evaluations judge.

Files, in the order in which data meets them:
    packages.py           transformers and timm, imported when a folder needs them
    external.py           what external encoders share: a folder's files, preprocessing, tokens
    from_transformers.py  vision towers of transformers
    from_timm.py          models of timm
    from_open_clip.py     vision towers of open_clip
    open_encoder.py       whose encoder lies at a path: ours, or one of these
    phrases.py            phrases as vectors, for heads that read a phrase beside an image

Purpose
    ``open_encoder.open_encoder(path)`` takes a local folder (or our own weights file), tells whose
    it is by the files in it, and returns an ImageEncoder with its own preprocessing and width.
    ``phrases.open_phrases`` does the same for phrases. docs/extending.md adds a family.

Contracts
    * Nothing is fetched, no code of a folder is run, pickles are read with ``weights_only=True``.
    * Tokens are the patch tokens of the last layer after the norm that the library's own pooled
      feature passes, without class token. ``forward`` and ``patches`` return the same.
    * The whole stored square is resized to the model's size with the filter, mean and std of the
      folder's own configuration. A centre crop, where the configuration asks for one, is left out:
      it would cut the lungs, and a grid of tokens would not cover the square any more.
    * One grey channel is repeated to as many as the model has.

Pitfalls
    * transformers and timm are optional and imported when a folder needs them. timm imports
      torchvision, which the lock leaves out: see ``packages``.
    * Where the patch does not divide the size (384 / 14), the last pixels are not seen, as in the
      library itself.
    * OWLv2 has 3600 tokens an image at its 960 px: a store of patches is large.
"""
