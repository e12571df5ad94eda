"""LAPVQA: from a chest X-ray archive (DICOM and reports) to an evaluated, traceable vision encoder.

This package is the science; it never imports an orchestrator. Rooms:

``errors`` ``params`` ``config`` ``layout`` ``schemas`` ``storage`` ``recorder`` ``runtime``
    the contracts every stage shares
``inventory`` ``dicom`` ``text`` ``data``
    the front end: files to images and tokens
``synth``
    the demo archive, whose truth is known
``pretrain``
    model, training, checkpoints, export
``probe`` ``rrg`` ``evaluation`` ``metrics``
    downstream evaluations under one contract
``lineage`` ``report``
    where a result came from, and the page a person reads
``stage``
    the entry point of one stage: ``python -m lapvqa.stage NAME``
"""

__version__ = "0.1.0"
