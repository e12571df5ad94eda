"""Report generation: the report of studies that the encoder never saw.

Two writers: the caption decoder of the pipeline's model (systems trained, untrained) and a head
taught on the encoder's tokens (head_trained, head_untrained; of an external encoder, its name),
which every encoder can have. Beside them the most common training report, given to every study.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lapvqa.evaluation.results import BASELINE, PAIRS
from lapvqa.evaluation.task import ComparedSystems, EvaluationTask, MeasureRows
from lapvqa.params import RrgParams
from lapvqa.rrg import scoring
from lapvqa.schemas import RRG_PREDICTIONS


def measure_with(params: RrgParams, root: Path) -> MeasureRows:
    """Return the scoring with the weights of params.yaml; ConfigError if one lacks."""
    return partial(scoring.measure, weights=scoring.find_weights(params.weights, root))


def _line(writer: str, *, external: bool) -> ComparedSystems:
    systems = dict(zip(PAIRS[""], PAIRS["head" if external else ""], strict=True))
    return ComparedSystems({**systems, BASELINE: BASELINE}, writer, external)


TASK = EvaluationTask(
    name="rrg",
    judge="lapvqa.rrg.judge:judge",
    schema=RRG_PREDICTIONS,
    primary=scoring.PRIMARY,
    measure=scoring.measure,
    measure_with=measure_with,
    curves=scoring.curves,
    curve_columns=scoring.CURVE_COLUMNS,
    compared=(PAIRS[""], ("trained", BASELINE), PAIRS["head"]),
    lines=(_line("decoder", external=False), _line("head", external=True)),
    title="Report generation",
    about="A decoder writes the report of a study it never saw: the one that the encoder was "
    "pretrained with, where it was, and a head taught on the frozen encoder's tokens. Finding "
    "F1 compares the findings asserted in the text with those known of the study; BLEU and "
    "ROUGE compare words with the reference report. The baseline answers every study with "
    "the most common training report.",
    charted=("finding_f1_micro", "finding_f1_macro", "finding_f1", "bleu4", "rougeL"),
    examples="reports",
)
