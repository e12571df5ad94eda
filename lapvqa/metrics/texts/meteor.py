"""METEOR 1.5 where its tools are: Java on the path and the jar inside ``pycocoevalcap``.

Denkowski & Lavie, WMT 2014. The jar aligns each pair of texts (exact, stem, synonym, paraphrase;
option -norm: its own lower-case tokens) and prints counts; these are summed over samples with
weights and scored here with its English parameters, which gives the jar's own corpus value. The
corpus value is not the mean of the samples' values.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lapvqa.errors import SourceError
from lapvqa.metrics.bootstrap import Array
from lapvqa.metrics.panel import Panel, not_computed, weighted_ratio

NAME = "meteor"
MISSING = "not computed: java/pycocoevalcap not installed"

# English, task rank, as the jar's -l en sets them.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
_NUM_COUNTS = 23


def meteor_jar() -> Path | None:
    """Return the jar's place; None without Java or without the package."""
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations or shutil.which("java") is None:
        return None
    jar = Path(spec.submodule_search_locations[0]) / "meteor" / "meteor-1.5.jar"
    return jar if jar.is_file() else None


def meteor_panel(references: Sequence[str], hypotheses: Sequence[str]) -> Panel:
    """Return meteor, 0..1, an empty hypothesis matching nothing; undefined without the tools."""
    jar = meteor_jar()
    if jar is None:
        return not_computed((NAME,), MISSING)
    counts = meteor_counts(references, hypotheses, jar=jar)

    def statistic(weights: Array) -> Array:
        return meteor_score(weights @ counts)[:, None]

    return Panel(names=(NAME,), statistic=statistic)


def meteor_counts(references: Sequence[str], hypotheses: Sequence[str], *, jar: Path) -> Array:
    """Return the jar's counts of each pair, [n, 23]; raises SourceError if it does not answer.

    Columns: words and function words of hypothesis and reference (4), per stage content and
    function matches of both sides (16), chunks (0 for a whole match), matched words of both sides.
    """
    lines = [
        f"SCORE ||| {_one_line(reference)} ||| {_one_line(hypothesis)}"
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]
    command = ["java", "-Xmx2G", "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
    done = subprocess.run(
        command, cwd=jar.parent, input="\n".join([*lines, ""]), capture_output=True, text=True,
        encoding="utf-8", check=False,
    )  # fmt: skip
    rows = [[float(number) for number in line.split()] for line in done.stdout.splitlines()]
    if done.returncode or len(rows) != len(lines) or {len(row) for row in rows} - {_NUM_COUNTS}:
        raise SourceError(
            f"METEOR: expected {len(lines)} lines of {_NUM_COUNTS} counts, found {len(rows)} lines "
            f"and exit code {done.returncode}",
            hint="try the jar by hand (2 GB of memory are asked for), or uninstall pycocoevalcap",
        )
    return whole_without_chunks(np.array(rows, dtype=np.float64).reshape(-1, _NUM_COUNTS))


def whole_without_chunks(counts: Array) -> Array:
    """Set the chunks of a pair matched whole in one piece to 0, as the jar does before it sums."""
    chunks, matched, reference_matched = counts[:, 20:].T
    whole = (chunks == 1) & (matched == counts[:, 0]) & (reference_matched == counts[:, 1])
    counts = counts.copy()
    counts[whole, 20] = 0
    return counts


def meteor_score(counts: Array) -> Array:
    """Return the score of summed counts [m, 23]: [m]; 0 where nothing matches."""
    length, reference_length, function, reference_function = counts[:, :4].T
    stages = counts[:, 4:20].reshape(-1, 4, 4)  # stage; content, content, function, function
    content, reference_content, functions, reference_functions = (
        stages[:, :, side] @ _STAGE_WEIGHTS for side in range(4)
    )
    chunks, matched, reference_matched = counts[:, 20:].T
    precision = weighted_ratio(_blend(content, functions), _blend(length - function, function))
    recall = weighted_ratio(
        _blend(reference_content, reference_functions),
        _blend(reference_length - reference_function, reference_function),
    )
    mean = weighted_ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    broken = weighted_ratio(2 * chunks, matched + reference_matched)
    return np.nan_to_num(mean * (1 - _GAMMA * broken**_BETA))


def _blend(content: Array, function: Array) -> Array:
    blended: Array = _DELTA * content + (1 - _DELTA) * function
    return blended


def _one_line(text: str) -> str:
    return " ".join(text.replace("|||", " ").split())
