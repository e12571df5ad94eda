"""Pretraining: a ViT that learns to write, or to recognise, the report of an image.

Files, in the order in which data meets them:
    train.py         the stage: states, results, and the digest of all that decides them
    launch.py        torchrun as a child of the stage, where several processes train
    worker.py        one of these processes
    distributed.py   what the processes exchange; DDP and FSDP2
    start.py         weights that a training goes on from
    other_vits.py    a ViT of another size or library as weights of the encoder
    vit_names.py     the encoder's tensors under the names of transformers, and back
    seen.py          whether it may: all that they have seen must be training data still
    loader.py        the pairs to train on, and their batches in an order that needs no memory
    inputs.py        a batch to model inputs: drawn and renumbered ahead, augmented on the device
    model.py         the published models
    encoder.py       the encoder under the path that cards name
    objectives/      loss and validation of each objective, however a step is cut
    optimizer.py     AdamW and its learning-rate schedule
    guard.py         may a step change the weights: decided on the device
    trainer.py       the loop, with an exact resume
    flops.py         the products that a model's parts take
    monitor.py       speed, MFU and memory of a step
    history.py       history.csv, and the chain of losses that makes it checkable
    checkpoint.py    states of an unfinished training
    members.py       whom the training sampled, how often, in which role
    samples.py       a few reports as the model writes them
    memory.py        what training needs, what fits, and the error when memory runs out
    allocations.py   the bytes of a simulated step, for memory
    compiled_blocks.py  what a compiled block keeps for its backward pass
    files.py         the files of a model's folder, and the models they make
    replay.py        some steps of a finished training again, for `lapvqa replay`

Contracts
    Weights files are plain state dicts, read with ``weights_only=True``.
    A new objective is a class in objectives and its model in model; docs/extending.md adds one.
    The same parameters and data give the same bytes, however often the run was killed.

Pitfalls
    The bits of a result depend on the number of threads (computing.cpu_threads), of processes, and
    on the processor: a sum over another partition rounds differently. Equal machine, equal bytes.
    Training works on a vocabulary cut to the tokens that occur (``networks.vocabulary``); what is
    written to disk has all 50257 rows again.
    memory and samples change no result: ``lapvqa.code`` leaves them out of every digest.
"""
