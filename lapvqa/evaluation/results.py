"""The files of one evaluation's folder, and the one reader of metrics.json.

Numbers come in the order of the file; what a page or a table makes of them is theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lapvqa import storage
from lapvqa.errors import SchemaError

PREDICTIONS, METRICS, CURVES = "predictions.parquet", "metrics.json", "curves.csv"
HEADLINE = "headline.json"
EXTRA = "extra"
ENCODER = "encoder.json"
"""Beside the folders of an encoder from elsewhere: what it is, and what was stated of it."""
OK, NOT_COMPUTED = "ok", "not computed"

PAIRS = {"": ("trained", "untrained"), "head": ("head_trained", "head_untrained")}
"""Writer -> systems that differ in nothing but whether the encoder was trained."""

BASELINE = "most_common"
"""The system that answers every sample with what is most common in training."""


@dataclass(frozen=True)
class Interval:
    """A number with its confidence limits; None where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def limits(self) -> tuple[float, float] | None:
        """Low and high; None without an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def shown(self, form: str = "z.3f") -> str:
        """Return ``0.910 [0.880, 0.940]``; ``form``: of each number (``+z.3f``: signed)."""
        if self.value is None:
            return "undefined"
        value = format(self.value, form)
        if self.limits is None:
            return value
        return f"{value} [{', '.join(format(limit, form) for limit in self.limits)}]"

    def __str__(self) -> str:
        return self.shown()


UNDEFINED = Interval(None)
NO_INTERVAL = "no interval, too few patients"
BETTER, WORSE, CANNOT_TELL, NO_VALUE = "better", "worse", "cannot tell", "not judged"

Systems = Mapping[str, Mapping[str, Interval]]
"""System, or pair of systems ``a-b`` -> metric -> number."""


@dataclass(frozen=True)
class HeadSpread:
    """A metric's values of several heads, a seed each, and their standard deviation."""

    values: tuple[float | None, ...]
    sd: float | None


@dataclass(frozen=True)
class Headline:
    """The primary metric before and after pretraining; ``writer``: see ``PAIRS``."""

    writer: str
    systems: tuple[str, str]
    trained: Interval
    untrained: Interval
    difference: Interval

    @property
    def verdict(self) -> str:
        """What the interval of the difference says, of a metric of which more is better."""
        if self.trained.value is None and self.untrained.value is None:
            return NO_VALUE
        if self.difference.limits is None:
            return CANNOT_TELL
        low, high = self.difference.limits
        return BETTER if low > 0 else WORSE if high < 0 else CANNOT_TELL


CONTAMINATED, UNKNOWN_TRAINING, STATED_TRAINING = (
    "contaminated", "unknown training", "stated training",
)  # fmt: skip
TRAINING_UNKNOWN, TRAINING_STATED = "training_unknown", "training_stated"
TRAINING_OTHER = "training_of_another_run"
_STATES = {
    TRAINING_UNKNOWN: UNKNOWN_TRAINING,
    TRAINING_OTHER: UNKNOWN_TRAINING,  # its digest is known, its images are not
    TRAINING_STATED: STATED_TRAINING,
}
MEANINGS = {
    CONTAMINATED: "values may be too high by what training had seen: no fair comparison",
    UNKNOWN_TRAINING: "if it had them, values are too high: that such an encoder is better proves "
    "nothing, that it is worse does",
    STATED_TRAINING: "a comparison is as good as what was stated",
}
"""State -> what it means for a comparison."""


def state_of(codes: Iterable[str]) -> str:
    """Return what a result with these codes is called: contaminated, or not known to be."""
    states = {_STATES.get(code, CONTAMINATED) for code in codes}
    return states.pop() if len(states) == 1 else CONTAMINATED


@dataclass(frozen=True)
class Contamination:
    """Why the test images may be known to training: in words, and how many images by code.

    Codes: the firewall's reasons, or those of ``lapvqa.evaluation.contamination``.
    """

    why: tuple[str, ...]
    counts: Mapping[str, int]

    @property
    def state(self) -> str:
        """What it is called; ``MEANINGS`` says what follows."""
        return state_of(self.counts)

    def stated(self, training: str) -> Contamination:
        """Return what is left of an unknown training when somebody says what it was."""
        if self.state != UNKNOWN_TRAINING:
            return self
        why = f"{training} (as stated; nobody has searched it for the test images)"
        return Contamination((why,), {TRAINING_STATED: sum(self.counts.values())})

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in metrics.json."""
        return {"why": list(self.why), "counts": dict(self.counts)}


NOBODY_LOOKED = Contamination(
    ("nobody has looked whether its training knows the test images",), {TRAINING_UNKNOWN: 0}
)


@dataclass(frozen=True)
class TaskResult:
    """One evaluation's metrics, or the ``reason`` why there are none."""

    task: str
    computed: bool
    reason: str = ""
    primary: str = ""
    num_samples: int = 0
    num_patients: int = 0
    systems: Systems = field(default_factory=dict)
    differences: Systems = field(default_factory=dict)
    seeds: Mapping[str, Mapping[str, HeadSpread]] = field(default_factory=dict)
    undefined: tuple[str, ...] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)
    contaminated: Contamination | Literal[False] | None = None
    """None: nobody has looked, so nothing vouches for the result."""

    @property
    def doubt(self) -> Contamination | None:
        """Why its training may know the test images; None if it was searched, and does not."""
        if not self.computed or self.contaminated is False:
            return None
        return NOBODY_LOOKED if self.contaminated is None else self.contaminated

    @property
    def metrics(self) -> list[str]:
        """The metrics that any system has, each once."""
        return list(dict.fromkeys(name for values in self.systems.values() for name in values))

    def interval(self, system: str, metric: str) -> Interval:
        """Return one metric of one system; undefined if the file does not have it."""
        return self.systems.get(system, {}).get(metric, UNDEFINED)

    def difference(self, pair: tuple[str, str], metric: str) -> Interval:
        """Return how far the first system is above the second; undefined if not compared."""
        return self.differences.get("-".join(pair), {}).get(metric, UNDEFINED)

    @property
    def too_few_patients(self) -> str:
        """Why no number of it has an interval; empty if some may have one."""
        fewest = self.protocol.get("interval_min_patients", 0)
        return f"fewer than {fewest} patients" if self.num_patients < fewest else ""

    def why_no_interval(self, system: str) -> str:
        """Why the main value of a system stands without an interval; empty if it has one."""
        main = self.interval(system, self.primary)
        if main.value is None or main.limits is not None:
            return ""
        return self.too_few_patients or "too few patients for the metric"

    def why_lacking(self, system: str) -> str:
        """Why the main metric of a system has no value, or no interval; empty if it has both."""
        if system in self.systems and self.interval(system, self.primary).value is None:
            reasons = dict(line.split(": ", 1) for line in self.undefined if ": " in line)
            return f"no value: {reasons.get(self.primary, 'undefined for these samples')}"
        why = self.why_no_interval(system)
        return why and f"no interval: {why}"

    def headlines(self) -> Iterator[Headline]:
        """Yield a row for each of ``PAIRS`` of which the result has a system."""
        for writer, pair in PAIRS.items():
            if any(system in self.systems for system in pair):
                trained, untrained = (self.interval(system, self.primary) for system in pair)
                gain = self.difference(pair, self.primary)
                yield Headline(writer, pair, trained, untrained, gain)


def read_result(folder: Path, task: str) -> TaskResult:
    """Read the metrics of a folder; MissingArtifactError if absent, SchemaError if malformed.

    What was stated of an encoder whose training is unknown is taken from beside the folder.
    """
    path = folder / METRICS
    content = storage.read_json(path, made_by=f"evaluate@{task}")
    try:
        result = parse(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaError(
            f"{folder.parent.name}/{folder.name}/{METRICS}: expected the fields of an evaluation, "
            f"found none under {error}",
            hint=f"run `lapvqa run --stage evaluate@{task}` again",
        ) from error
    encoder = folder.parent / ENCODER
    stated = storage.read_json(encoder, made_by="evaluate") if encoder.exists() else {}
    if result.doubt and stated.get("trained_on"):
        return replace(result, contaminated=result.doubt.stated(stated["trained_on"]))
    return result


def parse(content: Mapping[str, Any]) -> TaskResult:
    """Return the content of a metrics.json as a record; KeyError where a field lacks."""
    if content["status"] != OK:
        return TaskResult(content["task"], computed=False, reason=str(content["reason"]))
    return TaskResult(
        content["task"],
        computed=True,
        primary=content["primary"],
        num_samples=content.get("num_samples", 0),
        num_patients=content.get("num_patients", 0),
        systems=_intervals(content["systems"]),
        differences=_intervals(content.get("differences", {})),
        seeds={
            system: {
                metric: HeadSpread(tuple(heads["values"]), heads["sd"])
                for metric, heads in metrics.items()
            }
            for system, metrics in content.get("seeds", {}).items()
        },
        undefined=tuple(str(line) for line in content.get("undefined", [])),
        protocol=content.get("protocol", {}),
        contaminated=_contamination(content.get("contaminated")),
    )


def _contamination(content: Any) -> Contamination | Literal[False] | None:
    return Contamination(tuple(content["why"]), content["counts"]) if content else content


def _intervals(systems: Mapping[str, Any]) -> Systems:
    return {
        system: {
            metric: Interval(number["value"], number.get("low"), number.get("high"))
            for metric, number in metrics.items()
        }
        for system, metrics in systems.items()
    }


def lacking(results: Iterable[TaskResult]) -> dict[str, list[str]]:
    """Return what lacks and why -> the tasks in whose rows it does: a value, or an interval."""
    found: dict[str, list[str]] = {}
    for result in results:
        reasons = (result.why_lacking(system) for pair in PAIRS.values() for system in pair)
        for why in dict.fromkeys(filter(None, reasons)):
            found.setdefault(why, []).append(result.task)
    return found
