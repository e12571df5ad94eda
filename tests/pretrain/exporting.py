"""Take a handful of images through the real stages pretrain and export."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from lapvqa.config import Machine
from lapvqa.layout import Layout
from lapvqa.params import ExportParams, ModelParams, PretrainParams, read_yaml
from lapvqa.pretrain import export, train
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
    layout: Layout, repository: Path, objective: str, params: ExportParams | None = None
) -> Path:
    """Run both stages; export reads the objective from params.yaml. Return the model's folder."""
    training = pretrain_params(objective)
    whole = read_yaml(repository / "params.yaml")
    whole["pretrain"] = training.model_dump(mode="json")
    with layout.params.open("w") as handle:
        YAML().dump(whole, handle)
    recorder = Recorder(layout.record("pretrain"), stage="pretrain")
    train.run(training, layout, MACHINE, recorder)
    recorder.close()
    run_export(layout, params or ExportParams())
    return layout.model_dir(objective)


def run_export(layout: Layout, params: ExportParams) -> dict[str, float | int | str]:
    recorder = Recorder(layout.record("export"), stage="export")
    try:
        return export.run(params, layout, MACHINE, recorder)
    finally:
        recorder.close()
