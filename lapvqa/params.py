"""params.yaml as typed, frozen values: one model per stage, unknown keys and bad ranges refused.

YAML is parsed by ruamel, as DVC does (PyYAML reads 1e-4 as text). All faults are collected,
then raised together; each names key, value, what is allowed, the nearest known key and the line.
"""

from __future__ import annotations

import copy
import json
import re
from contextlib import suppress
from datetime import date, time
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lapvqa import yaml_faults
from lapvqa.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
LICENSE = re.compile(r"^[a-z0-9][a-z0-9.+-]*$")
Modality = Literal["CR", "DX", "RG", "RF", "XA", "OT", "SC", "none"]
"""Kinds of image that may be a projection radiograph; none: the header does not say."""


class Section(BaseModel):
    """A frozen section that refuses unknown keys and does not turn text into numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InventoryParams(Section):
    """Which folders are read; a path is relative to the project, local.yaml overrides it."""

    source: str
    chexpert: str
    nih14: str
    ext_vqa: str
    diff_vqa: str
    vindr: str
    ms_cxr: str
    labels: str = "labels"


class SplitParams(Section):
    """Shares of patients, used where the archive brings no official split."""

    validate_share: Share = Field(alias="validate")
    test: Share
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_training(self) -> SplitParams:
        if self.validate_share + self.test >= 1:
            raise ValueError("validate + test must leave a share for training (below 1)")
        return self


class DeidParams(Section):
    """Identity: keyed hashes after ingest unless ``keep_ids``."""

    keep_ids: bool = False
    dates: Literal["drop", "shift", "keep"] = "drop"
    identity_removed: Literal["accept", "unless_no", "require"] = "unless_no"
    reports: Literal["flag", "reject"] = "flag"


class LimitParams(Section):
    """What one file may cost a worker process before it is given up."""

    seconds: Annotated[float, Field(gt=0)] = 60
    memory_mb: Annotated[int, Field(ge=64)] = 2048


class RejectBudgetParams(Section):
    """Shares of files above which the run fails, in all and per folder of the source."""

    overall: Share = 0.05
    per_folder: Share = 0.25
    folder_min_files: Count = 20


SeveralReports = Literal["best", "first", "none"]


class IngestParams(Section):
    """Stage ingest."""

    views: Literal["any", "frontal"] = "any"
    unknown_view: Literal["keep", "frontal"] = "keep"
    modalities: Annotated[list[Modality], Field(min_length=1)] = ["CR", "DX", "RG"]
    colour: Literal["reject", "accept"] = "reject"
    body_part: Literal["chest", "any"] = "chest"
    burned_in: Literal["reject", "accept"] = "reject"
    several_reports: SeveralReports = "best"
    split: SplitParams
    shard_images: Count = 512
    limits: LimitParams = LimitParams()
    reject_budget: RejectBudgetParams = RejectBudgetParams()
    deid: DeidParams = DeidParams()


class TokensParams(Section):
    """Stage tokens."""

    sections: Literal["findings", "impression", "both"] = "both"
    language: Annotated[str, Field(pattern="^[a-z]{2,4}(-[a-z0-9]{2,8})*$")] = "auto"
    max_length: Annotated[int, Field(ge=4, le=2048)] = 256
    shard_reports: Count = 65536


class FirewallParams(Section):
    """Stage firewall: what is done about images and reports that a test set has too.

    ``template_patients``: a passage of five words that so many patients share is a template, and
    says nothing; ``report_overlap``: of the other passages, the share that makes two reports one.
    """

    on_leak: Literal["exclude", "stamp"] = "exclude"
    report_overlap: Annotated[float, Field(gt=0, le=1)] = 0.8
    template_patients: Annotated[int, Field(ge=2)] = 5


class ModelParams(Section):
    """Sizes; the defaults are the published ones.

    ``decoder_*`` is captioning's, ``text_*`` and ``embed_dim`` are those of the pair objectives;
    coca's layers of words are ``text_depth`` of ``decoder_width``.
    """

    image_size: Count = 384
    patch_size: Count = 14
    width: Count = 1024
    depth: Count = 24
    heads: Count = 16
    pooled_grid: Count = 16
    decoder_width: Count = 512
    decoder_depth: Count = 6
    decoder_heads: Count = 8
    text_width: Count = 512
    text_depth: Count = 6
    text_heads: Count = 8
    embed_dim: Count = 512

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelParams:
        for width, heads, name in (
            (self.width, self.heads, "heads"),
            (self.decoder_width, self.decoder_heads, "decoder_heads"),
            (self.text_width, self.text_heads, "text_heads"),
        ):
            if width % heads:
                raise ValueError(f"{name} is {heads}; must divide the width {width}")
        if self.image_size < self.patch_size:
            raise ValueError(
                f"patch_size is {self.patch_size}; must not exceed image_size {self.image_size}"
            )
        grid = self.image_size // self.patch_size
        if self.pooled_grid > grid:
            raise ValueError(
                f"pooled_grid is {self.pooled_grid}; must not exceed the {grid} patches a side"
            )
        return self


class CocaParams(Section):
    """Weights of CoCa's two losses; the defaults are the published ones."""

    caption: Annotated[float, Field(gt=0)] = 2.0
    contrastive: Annotated[float, Field(gt=0)] = 1.0


Attention = Literal["auto", "cudnn", "flash", "efficient", "math"]


class PretrainParams(Section):
    """Stage pretrain."""

    objective: Literal["captioning", "contrastive", "sigmoid", "coca"] = "captioning"
    seed: Annotated[int, Field(ge=0)] = 0
    continue_from: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    continue_epochs: Annotated[int, Field(ge=0)] = 0
    init: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][^\\:]*$")] | None = None
    """Folder or file of a ViT within the project, with which the vision encoder begins, unless
    ``continue_from`` names a whole model."""
    init_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Of those weights: so they are as much an input of the stage as a file would be."""
    replay: Share = 1.0
    model: ModelParams = ModelParams()
    epochs: Count
    batch_size: Annotated[int, Field(ge=1)]
    accumulate: Count = 1
    lr: Annotated[float, Field(gt=0, le=1)]
    min_lr: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    augment: bool = True
    flip: bool = False
    parallel_share: Share = 0.0
    coca: CocaParams = CocaParams()
    keep_patches: Annotated[float, Field(gt=0, le=1)] = 1.0
    skip_budget: Annotated[int, Field(ge=0)] = 10
    spike_factor: Annotated[float, Field(gt=1)] = 3.0
    checkpoint_activations: bool = False
    compile: bool = False
    residuals: Literal["float32", "bfloat16"] = "float32"
    deterministic: bool = True
    checkpoint_every_steps: Count = 100
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    save_every_epochs: Annotated[int, Field(ge=0)] = 0
    samples: Annotated[int, Field(ge=0, le=64)] = 4

    @model_validator(mode="after")
    def _begins_in_the_project(self) -> PretrainParams:
        if self.init and ".." in self.init.split("/"):
            raise ValueError("init must lie within the project; put the folder, or a link, there")
        return self


class ComputingParams(Section):
    """How every stage computes with torch; bits depend on it."""

    cpu_threads: Count = 1
    attention: Attention = "auto"


class ExportParams(Section):
    """Stage export; tolerances are relative to the largest output.

    ``license``: under which others may use the weights, as Hugging Face's hub names it; `lapvqa
    export` needs it, here or by its option.
    """

    tolerance: Annotated[float, Field(ge=0)] = 1e-6
    onnx: bool = False
    onnx_tolerance: Annotated[float, Field(ge=0)] = 1e-5
    license: Annotated[str, Field(pattern=LICENSE.pattern)] | None = None


class BootstrapParams(Section):
    """Intervals: patients are resampled."""

    bootstrap_draws: Annotated[int, Field(ge=10)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: int = 0


class ProbeChexpertParams(Section):
    """Linear probe on CheXpert-5; ``test``: the official validation or the official test set."""

    uncertain: Literal["zeros", "ones", "ignore", "mixed"] = "zeros"
    test: Literal["valid", "test"] = "valid"
    c_grid: list[float]


class ProbeNih14Params(Section):
    """Linear probe on NIH CXR-14."""

    c_grid: list[float]


class ProbeArchiveParams(Section):
    """Linear probe on the archive's own films; of more training films some patients' are taken."""

    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    most_images: Count = 20000
    c_grid: list[float] = [0.01, 0.1, 1.0, 10.0]


class RetrievalParams(Section):
    """Reports found by their film, films by their report; ``ridge_grid``: penalties to choose from.

    Of more training films some patients' are taken.
    """

    most_images: Count = 20000
    most_words: Count = 4096
    ridge_grid: list[Annotated[float, Field(gt=0)]] = [0.01, 0.1, 1.0, 10.0, 100.0]


class RecipeParams(Section):
    """How a head is trained; the encoder is frozen, or native: trained with the head.

    ``token_grid``: the head reads the means of so many cells a side of an image's tokens; 0: the
    tokens as they are. ``seeds``: heads per encoder, with the seeds ``seed``, ``seed`` + 1, ...
    """

    encoder: Literal["frozen", "native"] = "frozen"
    token_grid: Annotated[int, Field(ge=0)] = 0
    epochs: Count = 10
    batch_size: Count = 32
    lr: Annotated[float, Field(gt=0, le=1)] = 1e-4
    encoder_lr: Annotated[float, Field(gt=0, le=1)] = 1e-5
    warmup_share: Share = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    seeds: Count = 1


class TextHeadParams(Section):
    """Sizes of a head that writes; the defaults are the published ones."""

    d_model: Count = 512
    num_layers: Count = 6
    nhead: Count = 8

    @model_validator(mode="after")
    def _heads_fit(self) -> TextHeadParams:
        if self.d_model % self.nhead:
            raise ValueError(f"nhead is {self.nhead}; must divide d_model {self.d_model}")
        return self


class MetricWeightsParams(Section):
    """Folders with weights of metrics that need a network; null: not computed."""

    chexbert: str | None = None
    radgraph: str | None = None
    bertscore: str | None = None


Policy = Literal["raise", "report", "exclude"]


class QuestionParams(Section):
    """What the two question tasks share."""

    split: Literal["released", "archive"] = "released"
    shared_patients: Policy = "raise"
    pretrained_patients: Policy = "report"
    max_new_tokens: Count = 64
    head: TextHeadParams = TextHeadParams()
    recipe: RecipeParams = RecipeParams()


class VqaParams(QuestionParams):
    """Questions about one image (MIMIC-Ext-MIMIC-CXR-VQA)."""

    empty_answers: Literal["none", "exclude"] = "none"


class DiffVqaParams(QuestionParams):
    """Questions about an image and the one before it (MIMIC-Diff-VQA)."""

    reversed_pairs: Literal["flag", "exclude"] = "flag"


class RrgParams(Section):
    """Report generation: by the caption decoder, and by a head over the encoder's features."""

    max_new_tokens: Count = 128
    split: Literal["validate", "test"] = "test"
    sections: Literal["findings", "impression", "both"] = "both"
    prompt: str = ""
    head: TextHeadParams = TextHeadParams()
    recipe: RecipeParams = RecipeParams()
    weights: MetricWeightsParams = MetricWeightsParams()


class DetectionHeadParams(Section):
    """Sizes of the detection head; the defaults are the published ones."""

    d_model: Annotated[int, Field(ge=8, multiple_of=8)] = 256
    num_queries: Count = 20
    num_enc_layers: Count = 2
    num_dec_layers: Count = 3


class AdParams(Section):
    """Abnormality detection (VinDr-CXR)."""

    min_iou: Share = 0.4
    min_readers: Annotated[int, Field(ge=1, le=3)] = 1
    others: Literal["fold", "ignore"] = "fold"
    tokens: Literal["patches", "pooled"] = "patches"
    head: DetectionHeadParams = DetectionHeadParams()
    recipe: RecipeParams = RecipeParams()


class GroundingHeadParams(Section):
    """Sizes of the grounding head; the defaults are the published ones."""

    d_model: Annotated[int, Field(ge=8, multiple_of=8)] = 256
    num_layers: Count = 3


class PgParams(Section):
    """Phrase grounding (MS-CXR)."""

    split: Literal["released", "patient", "archive"] = "released"
    shared_patients: Policy = "raise"
    pretrained_patients: Policy = "report"
    several_boxes: Literal["union", "best"] = "union"
    phrase_encoder: str = "words"
    tokens: Literal["patches", "pooled"] = "patches"
    head: GroundingHeadParams = GroundingHeadParams()
    recipe: RecipeParams = RecipeParams()


class EvaluateParams(Section):
    """Stage evaluate: a common part and one section per task."""

    common: BootstrapParams = BootstrapParams()
    probe_chexpert: ProbeChexpertParams
    probe_nih14: ProbeNih14Params
    probe_archive: ProbeArchiveParams = ProbeArchiveParams()
    retrieval: RetrievalParams = RetrievalParams()
    vqa: VqaParams = VqaParams()
    diffvqa: DiffVqaParams = DiffVqaParams()
    rrg: RrgParams = RrgParams()
    ad: AdParams = AdParams()
    pg: PgParams = PgParams()


class DriftParams(Section):
    """Looks at what arrives; no stage. Of more than ``most_patients`` on a side some are drawn."""

    window_days: Count = 30
    min_patients: Annotated[int, Field(ge=5)] = 20
    most_patients: Annotated[int, Field(ge=10)] = 1000
    false_alarms_per_year: Annotated[float, Field(gt=0, le=12)] = 0.5
    seasons: bool = True
    seed: Annotated[int, Field(ge=0)] = 0


class ReportParams(Section):
    """Stage report."""

    examples: Annotated[int, Field(ge=0, le=100)] = 8
    patients: Literal["hide", "show"] = "hide"


class SafeguardParams(Section):
    """When a run stops and asks; read by no stage's result."""

    files_gone: Share = 0.1


class FreezeParams(Section):
    """When no training may begin: whole days, or hours of some days of the week."""

    begin: str = Field(alias="from")
    until: str
    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = []

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> FreezeParams:
        kinds = {type(self.first), type(self.last)}
        if len(kinds) > 1 or type(None) in kinds or (self.days and date in kinds):
            raise ValueError(
                'from and until are two days, "2026-12-20", both inside, or two times, "07:00", '
                "of all days or of days: [mon, tue]"
            )
        if isinstance(self.first, date) and isinstance(self.last, date) and self.last < self.first:
            raise ValueError(f"until is {self.until}; must not lie before {self.begin}")
        return self

    @property
    def first(self) -> date | time | None:
        """The first day, or the time at which it begins."""
        return _day_or_time(self.begin)

    @property
    def last(self) -> date | time | None:
        """The last day, or the time at which it ends, of the next day if not later."""
        return _day_or_time(self.until)


def _day_or_time(text: str) -> date | time | None:
    for kind, length in ((date, len("2026-12-20")), (time, len("07:00"))):
        with suppress(ValueError):
            if len(text) == length:
                return kind.fromisoformat(text)
    return None


class RetrainingParams(Section):
    """When the encoder is trained anew; no stage reads it. What 0 asks for is nothing."""

    start: Literal["champion", "scratch"] = "scratch"
    new_studies: Annotated[int, Field(ge=0)] = 0
    new_gigabytes: Annotated[float, Field(ge=0)] = 0
    each_arrival: bool = False
    least_new: Count = 1
    look_studies: Annotated[int, Field(ge=0)] = 200
    fallen: Annotated[float, Field(gt=0)] = 0.02
    quiet_minutes: Annotated[float, Field(ge=0)] = 30
    patience_hours: Annotated[float, Field(ge=0)] = 24
    rest_hours: Annotated[float, Field(ge=0)] = 12
    freeze: list[FreezeParams] = []
    gpu_hours: Annotated[float, Field(gt=0)] | None = None


Endpoint = Annotated[str, Field(pattern=r"^[a-z0-9_]+\.\S+$")]
"""An evaluation and one of its metrics: ``rrg.finding_f1_micro``."""
Margin = Annotated[float, Field(gt=0, lt=1)]
Slice = Literal["view", "sex", "age", "source"]


class GateBudgetParams(Section):
    """The chance of a wrong promotion over all looks at a test set; the share per look."""

    total: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    share: Annotated[float, Field(gt=0, le=1)] = 0.05


class GateParams(Section):
    """The gate's rule; no stage reads it. ``lapvqa.gate.verdict`` says what each value means.

    ``guard_level``: of the tests that a candidate must pass besides being better; ``patients``: of
    the sealed set, fewer are not asked; ``slice_patients``: the same of a slice.
    """

    primary: Annotated[list[Endpoint], Field(min_length=1)] = ["rrg.finding_f1_micro"]
    margins: dict[Endpoint, Margin] = {}
    slices: list[Slice] = ["view", "sex", "age", "source"]
    slice_margin: Margin = 0.05
    slice_patients: Annotated[int, Field(ge=2)] = 20
    worthwhile: Margin = 0.02
    guard_level: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    successor_margin: Margin = 0.02
    patients: Annotated[int, Field(ge=2)] = 30
    budget: GateBudgetParams = GateBudgetParams()
    sealed_share: Share = 0.5


class Params(Section):
    """All of params.yaml."""

    inventory: InventoryParams
    ingest: IngestParams
    tokens: TokensParams
    firewall: FirewallParams = FirewallParams()
    computing: ComputingParams = ComputingParams()
    pretrain: PretrainParams
    export: ExportParams
    evaluate: EvaluateParams
    report: ReportParams
    safeguards: SafeguardParams = SafeguardParams()
    retraining: RetrainingParams = RetrainingParams()
    drift: DriftParams = DriftParams()
    gate: GateParams = GateParams()


Model = TypeVar("Model", bound=BaseModel)


def load_params(path: Path) -> Params:
    """Read and check params.yaml; ConfigError lists every fault."""
    return read_settings(Params, path)


def read_settings(model: type[Model], path: Path, name: str | None = None) -> Model:
    """Read and check a YAML file; ConfigError lists every fault with its key and line.

    ``name``: what the file is called in an error, by default its own name.
    """
    raw, name = read_yaml(path), name or path.name
    if not raw and (error := yaml_faults.empty(name, model)):
        raise error
    return validate(model, raw, name, text=path.read_text(encoding="utf-8"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping as plain Python values; ConfigError if absent or malformed."""
    from ruamel.yaml.error import YAMLError

    if not path.exists():
        raise ConfigError(
            f"expected {path.name} in the project folder, found none",
            hint="run from the folder that holds dvc.yaml, or restore it: "
            f"git checkout {path.name}",
        )
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        value = _parsed(text)
    except (YAMLError, UnicodeDecodeError) as error:
        raise yaml_faults.malformed(path.name, text, error) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise yaml_faults.no_mapping(path.name, value)
    return copy.deepcopy(value)


@lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    """Parse once what a process reads again and again: dvc.lock takes 0.1 s a time."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(text)  # by libyaml, as DVC: a quarter of the time


def validate(model: type[Model], raw: dict[str, Any], name: str, *, text: str = "") -> Model:
    """Check ``raw`` against ``model``; ConfigError lists every fault with its key.

    ``text``: the YAML that ``raw`` was read from; without it no lines are named.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise yaml_faults.refused(model, name, text, error) from None


def read_json(model: type[Model], path: Path, *, hint: str) -> Model:
    """Read a JSON file of the project's folder; without the file, the model's defaults.

    ConfigError, with ``hint``, for what is no JSON; for what is not of the model, with its faults.
    """
    if not path.exists():
        return model()
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"expected JSON in {path.name}, found {error}", hint=hint) from None
    return validate(model, content, path.name)
