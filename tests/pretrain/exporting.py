"""Take a handful of images through the real stages pretrain and export."""

from __future__ import annotations

from pathlib import Path

from jobs import make_job
from ruamel.yaml import YAML

from lapvqa.export import export
from lapvqa.machine import Machine
from lapvqa.params import ExportParams, ModelParams, PretrainParams, read_yaml
from lapvqa.pretrain import train
from lapvqa.project import Project
from lapvqa.recorder import Recorder

MACHINE = Machine(workers=1, device="cpu")
SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
    text_width=32, text_depth=1, text_heads=2, embed_dim=16,
)  # fmt: skip


def pretrain_params(objective: str) -> PretrainParams:
    return PretrainParams(
        objective=objective, model=SIZES, epochs=2, batch_size=4, lr=3e-3, seed=11,
        save_every_epochs=1,
    )  # fmt: skip


def pretrain_and_export(
    project: Project, repository: Path, objective: str, params: ExportParams | None = None
) -> Path:
    """Run both stages; export reads the objective from params.yaml. Return the model's folder."""
    training = pretrain_params(objective)
    whole = read_yaml(repository / "params.yaml")
    whole["pretrain"] = training.model_dump(mode="json")
    with project.params.open("w") as handle:
        YAML().dump(whole, handle)
    recorder = Recorder(project.record("pretrain"), stage="pretrain")
    train.run(training, make_job(project, MACHINE, recorder))
    recorder.close()
    run_export(project, params or ExportParams())
    return project.model_dir(objective)


def run_export(project: Project, params: ExportParams) -> dict[str, float | int | str]:
    recorder = Recorder(project.record("export"), stage="export")
    try:
        return export.run(params, make_job(project, MACHINE, recorder))
    finally:
        recorder.close()
