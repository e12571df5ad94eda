"""Export: the trained encoder in every file format, and the card that describes it.

Files, in the order in which data meets them:
    export.py       the stage: weights, graphs and card.json, each checked before it is written
    standalone.py   graphs that compute without this code: torch.export and ONNX
    repository.py   a model repository for transformers and timm; no file of the stage

Contracts
    Equal weights give equal bytes of every file.
    A file is written only after its content gave the tokens of the trained encoder.

Pitfalls
    Files name classes by published paths (``standalone.published_path``): to move a class is to
    extend that table, or cards and graphs change their bytes.
"""
