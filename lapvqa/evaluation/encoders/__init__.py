"""Encoders from elsewhere, opened as the frozen encoder that the evaluations judge.

Purpose
    ``open.open_encoder(path)`` takes a local folder (or our own weights file), tells whose it is by
    the files in it, and returns a FrozenEncoder with its own preprocessing and width:
    our export (own), a transformers folder (from_transformers), a timm folder (from_timm), an
    open_clip folder (from_open_clip). ``phrases.open_phrases`` does the same for phrases.

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
      torchvision, which the lock leaves out: see ``without_torchvision``.
    * Where the patch does not divide the size (384 / 14), the last pixels are not seen, as in the
      library itself.
    * OWLv2 has 3600 tokens an image at its 960 px: a store of patches is large.
"""
