"""Judge encoders by questions about one image: the reader and the head."""

from __future__ import annotations

from functools import partial

from lapvqa.datasets.ext_vqa import read_ext_vqa
from lapvqa.evaluation import answering
from lapvqa.evaluation.evaluate import Evaluation
from lapvqa.job import Counts
from lapvqa.params import VqaParams
from lapvqa.vqa.model import VQAHead


def judge(run: Evaluation[VqaParams]) -> Counts:
    """Judge a set of encoders; raises SourceError, SplitLeakError, ConfigError."""
    params = run.params
    read = partial(
        read_ext_vqa,
        empty_answers=params.empty_answers,
        split=params.split,
        shared_patients=params.shared_patients,
        pretrained_patients=params.pretrained_patients,
    )
    return answering.judge(run, head=VQAHead, read=read, type_column="content_type", pairs=False)
