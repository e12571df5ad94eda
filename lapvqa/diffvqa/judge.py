"""Judge encoders by questions about two images: the reader and the head."""

from __future__ import annotations

from functools import partial

from lapvqa.datasets.diff_vqa import read_diff_vqa
from lapvqa.diffvqa.model import DiffVQAHead
from lapvqa.evaluation import answering
from lapvqa.evaluation.evaluate import Evaluation
from lapvqa.job import Counts
from lapvqa.params import DiffVqaParams


def judge(run: Evaluation[DiffVqaParams]) -> Counts:
    """Judge a set of encoders; raises SourceError, SplitLeakError, ConfigError."""
    params = run.params
    read = partial(
        read_diff_vqa,
        split=params.split,
        shared_patients=params.shared_patients,
        pretrained_patients=params.pretrained_patients,
        reversed_pairs=params.reversed_pairs,
    )
    return answering.judge(
        run, head=DiffVQAHead, read=read, type_column="question_type", pairs=True
    )
