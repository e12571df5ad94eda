"""A new objective is a loss and its class: the worked example of docs/extending.md, run."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from demo_project import ingested
from ruamel.yaml import YAML
from worked_example import assert_shown, copy_package, insert, replace, run

from lapvqa import storage
from lapvqa.params import read_yaml

LOSS = '''\
def hardest_negatives(
    images: Tensor,
    reports: Tensor,
    groups: Tensor,
    *,
    margin: float = 0.2,
    gather: Gather = _this_rank_alone,
) -> Tensor:
    """Return the max of hinges of embeddings [b, E] (VSE++, arXiv:1707.05612, equation 6).

    Each image and each report is to be nearer to its partner, by ``margin``, than to the one that
    is most easily taken for it. Of both directions the mean, so that it is zero at best.
    """
    all_images, all_reports = gather(images), gather(reports)
    same_report = groups.unsqueeze(1) == gather(groups)  # the partner among them
    partners = (images * reports).sum(dim=1)
    hinges = []
    for rows, others in ((images, all_reports), (reports, all_images)):
        hardest = (rows @ others.T).masked_fill(same_report, -1.0).amax(dim=1)
        hinges.append((margin + hardest - partners).relu().mean())
    return (hinges[0] + hinges[1]) / 2
'''
IMPORT = """\
from lapvqa.networks.losses import hardest_negatives, info_nce, pairwise_sigmoid
"""
CLASS = '''\
class HardestNegatives(Contrastive):
    """The max of hinges over the same embeddings."""

    def loss(self, images: Tensor, reports: Tensor, groups: Tensor, world: World) -> Tensor:
        """Return this rank's part of the loss."""
        return hardest_negatives(images, reports, groups, gather=world.gather_rows)
'''
CLASS_IMPORT = """\
from lapvqa.pretrain.objectives.contrastive import Contrastive, HardestNegatives, PairwiseSigmoid
"""
CLASS_OF = '    "hardest": HardestNegatives,\n'
BUILDER = '''\
def hardest_model(params: ModelParams) -> ContrastiveModel:
    """Build a model without a temperature to learn."""
    model = infonce_model(params)
    model.logit_scale.requires_grad_(False)
    return model
'''
MODEL_OF = '    "hardest": hardest_model,\n'
PARAMS = """\
    objective: Literal["captioning", "contrastive", "sigmoid", "coca", "hardest"] = "captioning"
"""
CHECKS = """\
import math
from pathlib import Path

import torch

from lapvqa.networks.losses import hardest_negatives
from lapvqa.pretrain.files import load_encoder, load_model
from lapvqa.pretrain.model import ContrastiveModel
from lapvqa.project import Project

image, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
images, reports = torch.cat([image, other]), torch.cat([other, image])  # each the other's partner
loss = hardest_negatives(images, reports, torch.tensor([0, 1])).item()
assert math.isclose(loss, 0.2 + 1.0 - 0.6, rel_tol=1e-6), loss
assert hardest_negatives(images, reports, torch.tensor([0, 0])).item() == 0

folder = Project(Path.cwd()).model_dir("hardest")
model, encoder = load_model(folder), load_encoder(folder)
assert isinstance(model, ContrastiveModel)
assert model.logit_scale.item() == torch.tensor(math.log(1 / 0.07)).item(), "not trained"
assert encoder(torch.zeros(2, 1, 32, 32)).shape == (2, 4, 32)
"""
SIZES = {
    "image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "pooled_grid": 2,
    "text_width": 32, "text_depth": 1, "text_heads": 2, "embed_dim": 16,
}  # fmt: skip


@pytest.mark.slow
def test_the_new_objective_trains_and_is_exported(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> None:
    root = tmp_path / "project"
    copy_package(repository, root)
    insert(root / "lapvqa/networks/losses.py", f"{LOSS}\n\n", before="def _own_rows(")
    losses = root / "lapvqa/pretrain/objectives/contrastive.py"
    replace(losses, IMPORT, start="from lapvqa.networks.losses import")
    insert(losses, f"{CLASS}\n\n", before="def recall(")
    table = root / "lapvqa/pretrain/objectives/table.py"
    replace(table, CLASS_IMPORT, start="from lapvqa.pretrain.objectives.contrastive import")
    insert(table, CLASS_OF, before='}\n"""Objective -> its class')
    model = root / "lapvqa/pretrain/model.py"
    insert(model, f"{BUILDER}\n\n", before="MODELS: dict")
    insert(model, MODEL_OF, before='}\n"""Objective -> what builds')
    replace(root / "lapvqa/params.py", PARAMS, start="    objective: Literal[")
    project = ingested(tmp_path_factory, root)
    values = read_yaml(project.params)
    values["pretrain"].update(objective="hardest", epochs=4, warmup_steps=2)
    values["pretrain"]["model"].update(SIZES)
    with project.params.open("w") as handle:
        YAML().dump(values, handle)
    project.local.write_text("{workers: 1, device: cpu}\n")
    for stage in ("pretrain", "export"):
        run(root, "lapvqa.stage", stage)

    folder = project.model_dir("hardest")
    with (folder / "history.csv").open(newline="") as handle:
        losses = [float(row["loss"]) for row in csv.DictReader(handle)]
    assert len(losses) >= 8
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-4:]) < sum(losses[:4])
    assert storage.read_json(folder / "card.json", made_by="export")["objective"] == "hardest"
    (root / "checks.py").write_text(CHECKS)
    run(root, "checks")


def test_the_document_shows_these_very_lines(repository: Path) -> None:
    lines = [LOSS, IMPORT, CLASS, CLASS_IMPORT, CLASS_OF, BUILDER, MODEL_OF, PARAMS]
    assert_shown(repository, files=[], lines=lines)
