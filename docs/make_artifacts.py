"""Write docs/artifacts.md from lapvqa/schemas.py and dvc.yaml: ``python docs/make_artifacts.py``.

Which stage makes which file is read from dvc.yaml, the columns from the schemas; only the purpose
of each file is written here. A file of dvc.yaml that has no purpose here is an error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from lapvqa import schemas
from lapvqa.images.shards import SHARD
from lapvqa.params import read_yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "artifacts.md"

PURPOSE: dict[str, tuple[str, pa.Schema | None]] = {
    "data/inventory": (
        "One Parquet file per input folder (`source`, `chexpert`, `nih14`): what is there, without "
        "reading it. The source's file holds the archive's layout and the id of the key in its "
        "metadata.",
        schemas.INVENTORY,
    ),
    "data/images": (
        "Shards `images-<digest>.arrow`: Arrow IPC, uncompressed, one record batch each, read by "
        "memory mapping. `pixels` is 384 x 384 uint8, row by row.",
        SHARD,
    ),
    "data/images.parquet": ("One row per stored image.", schemas.IMAGES),
    "data/studies.parquet": ("One row per study, with its report.", schemas.STUDIES),
    "data/labels.parquet": (
        "The archive's own CheXpert labels, one row per study that has them.",
        schemas.LABELS,
    ),
    "data/demographics.parquet": (
        "Sex and age band of each study, as far as the archive says: one row per row of "
        "`studies.parquet`.",
        schemas.DEMOGRAPHICS,
    ),
    "data/rejects.parquet": (
        "Every file, report or study that was not taken, and why. Files that the inventory lists "
        "(and members of zips) = rows of `images.parquet` + rows of kind `file` here + rows of "
        "`companions.parquet`.",
        schemas.REJECTS,
    ),
    "data/companions.parquet": (
        "Every file of the archive that is no image and no reject: DICOM objects that go with "
        "images, reports, tables, texts, the viewer of a CD.",
        schemas.COMPANIONS,
    ),
    "data/tokens": (
        "Shards `tokens-<digest>.parquet`: one row per study with text.",
        schemas.TOKENS,
    ),
    "data/token_rejects.parquet": (
        "Studies that got no tokens, and why. Studies = rows of `data/tokens` + rows here.",
        schemas.REJECTS,
    ),
    "data/report_languages.parquet": (
        "One row per study with a report: the language it was read by, and how long its target "
        "text is.",
        schemas.REPORT_LANGUAGES,
    ),
    "data/firewall/excluded.parquet": (
        "The images that pretraining and heads lose because a test set has them, their study or "
        "their patient too; nothing that training would not have taken. docs/firewall.md.",
        schemas.EXCLUDED,
    ),
    "data/firewall/tested": (
        "One Parquet file per data set (`archive`: its splits validate and test): every image "
        "that is tested on, and whether training knew it.",
        schemas.TESTED,
    ),
    "data/firewall/account.json": (
        "The firewall's counts per data set and reason, and what was not compared, and why.",
        None,
    ),
    "models/<objective>/model_best.pt": (
        "Weights of the whole model at the lowest validation loss (encoder and decoder, or both "
        "encoders and their projections): a plain state dict, read with "
        "`torch.load(..., weights_only=True)`.",
        None,
    ),
    "models/<objective>/model_last.pt": ("The same after the last step.", None),
    "models/<objective>/training.json": (
        "How the model was trained: parameters, sizes, steps, losses.",
        None,
    ),
    "models/<objective>/members.parquet": (
        "Whom the training sampled, how often, in which role: what lineage answers from, and where "
        "erasing a patient starts. It stays with the project: no exported form holds it.",
        schemas.MEMBERS,
    ),
    "models/<objective>/epochs": (
        "`model_epochNNN.pt`, the whole model after every `save_every_epochs` epochs; empty if "
        "that is 0.",
        None,
    ),
    "models/<objective>/history.csv": (
        "Columns `step`, `loss`, `val_loss` (empty where not measured), `lr`, `epoch`.",
        None,
    ),
    "models/<objective>/encoder_final.pt": (
        "The encoder alone, of the last step (decisions/0017): a plain state dict.",
        None,
    ),
    "models/<objective>/encoder.safetensors": ("The same tensors as safetensors.", None),
    "models/<objective>/exports": (
        "The encoder as graph and weights, which computes without this code, for any number of "
        "images: float32 [B, 1, S, S], normalised, to pooled tokens [B, g * g, D]. `encoder.pt2` "
        "(torch.export) always, `encoder.onnx` (opset 18) where `export.onnx` is true; "
        "`files.json` says of each what it takes and gives, and its sha256.",
        None,
    ),
    "models/<objective>/card.json": (
        "What the model is: sizes, preprocessing, training facts; of every file of weights what it "
        "holds, how it is loaded, its sha256.",
        None,
    ),
    "results/<task>/predictions.parquet": (
        "One row per sample and system; how they were made stands in the file's metadata. "
        "Metrics are computed from this file alone.",
        None,
    ),
    "results/<task>/sealed.parquet": (
        "The rows of patients who are kept for the gate, in the columns of predictions.parquet; "
        "empty where nobody is sealed. No number is shown of them: [gate.md](gate.md).",
        None,
    ),
    "results/<task>/curves.csv": (
        "Points of the evaluation's picture for `dvc plots`: the first column is the axis, the "
        "others are the systems.",
        None,
    ),
    "results/<task>/metrics.json": (
        'Either `{"task", "status": "ok", "primary", "num_samples", "num_patients", "systems": '
        '{system: {metric: {"value", "low", "high"}}}, "differences", "seeds", "undefined", '
        '"metrics", "protocol", "contaminated"}` (false, or `{"why", "counts"}`: firewall.md) or '
        '`{"task", "status": "not computed", "reason"}`. An undefined number is null, never 0.',
        None,
    ),
    "results/<task>/headline.json": (
        "What `dvc metrics` shows, `{primary: the task's primary metric of the trained encoder, "
        "gain: above the untrained one}`: two columns for all tasks.",
        None,
    ),
    "results/<task>/extra": (
        "What else the task leaves: `head.pt`, its trained head in the form of the published card "
        "(of the first system); `encoder.pt`, what a native recipe made of its encoder; "
        "`probe.safetensors`, a probe's regressions; `examples.npz` (ad), the pixels that the page "
        "shows; `files.json` "
        "lists them.",
        None,
    ),
    "reports/pictures": ("One picture per task, `<task>.svg`, as on the page.", None),
    "reports/index.html": ("The page a person reads: one self-contained file.", None),
}
PREDICTIONS = {
    "`results/probe_chexpert`, `results/probe_nih14` and `results/probe_archive`": (
        schemas.PROBE_PREDICTIONS
    ),
    "`results/retrieval`": schemas.RETRIEVAL_PREDICTIONS,
    "`results/vqa` and `results/diffvqa`": schemas.ANSWER_PREDICTIONS,
    "`results/rrg`": schemas.RRG_PREDICTIONS,
    "`results/ad`": schemas.DETECTION_PREDICTIONS,
    "`results/pg`": schemas.GROUNDING_PREDICTIONS,
}


def page() -> str:
    """Return the text of docs/artifacts.md; KeyError if an output has no purpose above."""
    makers = outputs(read_yaml(ROOT / "dvc.yaml")["stages"])
    unknown = sorted(set(makers) ^ set(PURPOSE))
    if unknown:
        raise KeyError(f"in one of dvc.yaml and PURPOSE only: {', '.join(unknown)}")
    parts = [
        "# Artefacts\n\n"
        "Written by `docs/make_artifacts.py` from `lapvqa/schemas.py` and `dvc.yaml`; edit those. "
        "Columns are checked whenever a file is written or read. `<objective>` is "
        "`pretrain.objective` of params.yaml, `<task>` an evaluation.\n"
    ]
    for path, (purpose, schema) in PURPOSE.items():
        parts.append(f"## `{path}`\n\nMade by stage `{makers[path]}`. {purpose}\n")
        if schema is not None:
            parts.append(columns(schema))
        if path == "results/<task>/predictions.parquet":
            for where, one in PREDICTIONS.items():
                parts.append(f"In {where}:\n")
                parts.append(columns(one))
    parts.append(
        "## `evaluations/<name>/<task>`\n\nMade by `lapvqa evaluate --encoder`, no stage. The "
        "files of `results/<task>` for another encoder; see [evaluate.md](evaluate.md).\n"
    )
    return "\n".join(parts)


def outputs(stages: dict[str, Any]) -> dict[str, str]:
    """Return path -> stage for all outputs, metrics and plots of dvc.yaml."""
    makers: dict[str, str] = {}
    for name, stage in stages.items():
        body = stage.get("do", stage)
        shown = f"{name}@<task>" if "foreach" in stage else name
        listed = [*body.get("outs", []), *body.get("metrics", []), *body.get("plots", [])]
        for item in listed:
            path = str(next(iter(item)) if isinstance(item, dict) else item)
            path = path.replace("${pretrain.objective}", "<objective>").replace("${key}", "<task>")
            makers[path] = shown
    return makers


def columns(schema: pa.Schema) -> str:
    """Return a table of a schema's columns."""
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for field in schema:
        meaning = (field.metadata or {}).get(b"doc", b"").decode()
        kind = str(field.type).replace("|", "\\|")
        null = ", may be null" if field.nullable else ""
        lines.append(f"| `{field.name}` | `{kind}`{null} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")
