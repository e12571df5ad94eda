"""LAPVQA: from a chest X-ray archive (DICOM and reports) to an evaluated, traceable vision encoder.

This package is the science; it never imports an orchestrator. The rooms follow the data, and a
later room imports earlier ones, never the reverse (docs/architecture.md).

Files, in the order in which data meets them:
    params.py     params.yaml as typed sections: every value that changes a result
    yaml_faults.py  what is wrong with a file of settings, line by line
    machine.py    local.yaml: facts of this machine
    project.py    where each artefact lies
    errors.py     errors, named by what the reader can do about them
    schemas.py    the columns of every table
    storage.py    atomic, checked reads and writes; locks
    extras.py     packages that few need: who asks for them, and how to get them
    pages/        what all pages of HTML share
    arrivals.py   the list of what has arrived from the hospital
    recorder.py   what a running stage tells: progress, metrics, counts
    runtime.py    the process: cores, death of the parent
    job.py        what a stage is handed: project, machine, recorder, folders
    code.py       which code decides a result
    stage.py      one stage: python -m lapvqa.stage NAME
    identity.py   identifiers to keyed hashes
    synth/        the demo archive, whose truth is known
    inventory.py  stage 1: lists the input folders
    vanished.py   much of an input folder is gone: stop and ask
    dicom/        one file's bytes to one grey image
    images/       the stored square, its shards, its way into a model
    ingest/       stage 2: the archive to images, studies, rejects
    text/         stage 3: reports to tokens
    preview.py    what would become of a file, a folder or a report
    networks/     encoder, decoder, losses, generation, weights
    datasets/     readers of public data sets
    metrics/      arrays in, numbers with intervals out
    firewall/     stage 4: what a test set has too, training loses
    pretrain/     stage 5: objectives, trainer, exact resume
    export/       stage 6: the encoder in every form, and its card
    heads/        what the task heads share
    evaluation/   stage 7: the table of tasks, the contract, encoders, comparison
    probe/        linear probes: CheXpert-5, NIH ChestX-ray14, the archive's own
    retrieval/    films and reports that find each other
    vqa/          questions about one image
    diffvqa/      questions about two images
    rrg/          report generation
    ad/           abnormality detection
    pg/           phrase grounding
    inference/    a trained model used: films to features, captions, answers
    report/       stage 8: the page a person reads
    uptodate/     is there anything to do, told without DVC
    lineage/      where a result came from
    drift/        has what arrives changed
    gate/         the rule by which a candidate takes the champion's place, and its verdicts
    retraining/   when the encoder is trained anew, and that it happens once
    intake/       from the hospital to the archive: what arrives, whole and once
    erasure/      a patient, out of every store, and the proof of it
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lapvqa.inference.encoder import Encoder as Encoder

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Encoder":  # torch is imported with it
        try:
            return import_module("lapvqa.inference.encoder").Encoder
        except AttributeError as error:  # "from" would say no more than that there is no Encoder
            raise ImportError(f"lapvqa.Encoder cannot be imported: {error}", name=name) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
