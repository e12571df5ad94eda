"""``lapvqa export``: the encoder as a model repository that transformers and timm load.

The stage export writes what the pipeline itself goes on with. This folder has the evaluations'
figures in it, so it is made after them, from the ledger, and no stage depends on it.
"""

from __future__ import annotations

from pathlib import Path

from flows.commands import chosen_model, own_files, terminal
from lapvqa import storage
from lapvqa.errors import ConfigError, MissingArtifactError
from lapvqa.lineage import chosen, ledger
from lapvqa.lineage.ancestry import Ancestry, Told
from lapvqa.lineage.card import document, markdown
from lapvqa.params import LICENSE, ModelParams, load_params
from lapvqa.project import Project


def execute(
    project: Project, folder: Path, *, model: str | None, license: str | None = None
) -> int:
    """Write the folder; ConfigError without a licence, or where something else lies there."""
    from lapvqa.evaluation.encoders.open_encoder import open_own
    from lapvqa.export import repository
    from lapvqa.networks.device import make_deterministic
    from lapvqa.pretrain.files import ADAPTATION_FILE, TRAINING_FILE

    params = load_params(project.params)
    license = _named(license) or params.export.license
    if license is None:
        raise ConfigError(
            "expected a licence, found none, and others may not use weights without",
            hint="name one as the hub does: --license apache-2.0 for the demo's weights; for "
            "others whoever owns the radiographs has a say in it, and export.license of "
            "params.yaml keeps it",
        )
    own_files.require_folder(folder, "lapvqa export", "one that it made", ADAPTATION_FILE)
    ledger.require_whole(project)
    ancestry = Ancestry(ledger.entries(project))
    default = chosen_model.find(None, project).relative_to(project.root)
    told = chosen.model(project, ancestry, model or str(default))
    weights = _present(project, told)
    make_deterministic(threads=params.computing.cpu_threads)
    training = storage.read_json(weights.parent / TRAINING_FILE, made_by="pretrain")
    sizes = ModelParams.model_validate(training["params"]["model"])
    encoder = open_own(weights).encoder
    files = repository.contents(encoder, sizes, training, params.evaluate.vqa.recipe)
    page = markdown.render(
        document.card(ancestry, told),
        front=repository.front_matter(license),
        before=repository.usage(sizes),
    )
    for name, content in {**files, repository.README: page.encode()}.items():
        storage.write_bytes(folder / name, content)
    terminal.console().print(
        f"{folder}: transformers and timm load it; licence {license}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return 0


def _named(license: str | None) -> str | None:
    if license is not None and not LICENSE.fullmatch(license):
        raise ConfigError(
            f"--license: expected a name as the hub writes it, found {license!r}",
            hint="such as apache-2.0, cc-by-nc-4.0 or other",
        )
    return license


def _present(project: Project, told: Told) -> Path:
    """Return the file of the model's weights, if they are still those of the ledger."""
    weights = project.root / str(told.weights)
    known = told.run.files.get(str(told.weights), {}).get("sha256")
    if not weights.exists() or storage.sha256_file(weights) != known:
        raise MissingArtifactError(
            f"expected the weights {str(known)[:12]} of that model at {told.weights}, found "
            f"{'others' if weights.exists() else 'none'}",
            hint="`dvc checkout` at its commit brings them back, or `lapvqa run` makes them",
        )
    return weights
