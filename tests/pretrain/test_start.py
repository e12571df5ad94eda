"""Going on from weights: what they are, whom they have seen, how much of that is shown again."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import write_project
from hypothesis import given
from hypothesis import strategies as st
from jobs import make_job

from lapvqa import storage
from lapvqa.errors import CheckpointError, MissingArtifactError, SplitLeakError
from lapvqa.evaluation.contamination import training_of
from lapvqa.export import export, repository
from lapvqa.machine import Machine
from lapvqa.params import ExportParams, PretrainParams, RecipeParams
from lapvqa.pretrain import members, train
from lapvqa.pretrain.loader import Plan, read_corpus
from lapvqa.pretrain.model import initial_model
from lapvqa.pretrain.start import find_start
from lapvqa.pretrain.trainer import Trainer
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.retraining.starts import new_studies
from lapvqa.schemas import EXCLUDED, MEMBERS, TOKENS


def run(params: PretrainParams, project: Project) -> dict[str, dict[str, object]]:
    """Train, and return the members by study."""
    recorder = Recorder(project.record("pretrain"), stage="pretrain")
    train.run(params, make_job(project, Machine(workers=1, device="cpu"), recorder))
    recorder.close()
    path = project.model_dir("captioning") / "members.parquet"
    rows = storage.read_table(path, MEMBERS, made_by="pretrain").to_pylist()
    return {row["study_key"]: row for row in rows}


def keep_as_start(project: Project) -> str:
    folder = project.model_dir("captioning")
    digest = storage.sha256_file(folder / "model_last.pt")
    project.start(digest).mkdir(parents=True)
    for name in ("model_last.pt", "members.parquet"):
        shutil.copy(folder / name, project.start(digest))
    return digest


@pytest.fixture
def begun(params: PretrainParams, project: Project) -> tuple[PretrainParams, Project]:
    """A project whose first training is kept, and parameters that go on from it."""
    run(params, project)
    return params.model_copy(update={"continue_from": keep_as_start(project)}), project


def test_it_begins_with_these_weights_and_counts_whom_they_have_seen(
    begun: tuple[PretrainParams, Project],
) -> None:
    params, project = begun
    start = find_start(params, project)
    assert start is not None
    trainer = Trainer(params, read_corpus(project), torch.device("cpu"), start=start)
    kept = torch.load(start.weights, weights_only=True)
    whole = trainer.vocabulary.restore(trainer.model, trainer.weights())
    for name, tensor in kept.items():
        torch.testing.assert_close(whole[name], tensor, rtol=0, atol=1e-6)
    before = {row["study_key"]: row for row in start.members.to_pylist()}
    after = run(params.model_copy(update={"continue_epochs": 1}), project)
    assert set(after) == set(before)
    for study, row in after.items():
        shown = row["times"] - before[study]["times"]
        assert shown == (1 if row["role"] == "train" else 0), study
        assert row["times_best"] >= before[study]["times"]
        assert row["first_step"] == (1 if row["role"] == "train" else 0)


def test_new_is_what_no_training_has_seen(begun: tuple[PretrainParams, Project]) -> None:
    _, project = begun
    assert new_studies(project, "captioning") == 0
    path = project.model_dir("captioning") / "members.parquet"
    rows = storage.read_table(path, MEMBERS, made_by="pretrain")
    storage.write_table(path, rows.slice(0, 17), MEMBERS)  # of 20 to train on and 6 to choose by
    assert new_studies(project, "captioning") == 3
    path.unlink()
    assert new_studies(project, "captioning") == 20


def test_the_weights_are_an_input_like_another(begun: tuple[PretrainParams, Project]) -> None:
    params, project = begun
    corpus = read_corpus(project)
    other = params.model_copy(update={"continue_from": "0" * 64})
    scratch = params.model_copy(update={"continue_from": None})
    assert len({train.run_digest(one, corpus) for one in (params, other, scratch)}) == 3
    with pytest.raises(MissingArtifactError, match="continue_from"):
        find_start(other, project)
    path = project.start(str(params.continue_from)) / "model_last.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="sha256"):
        find_start(params, project)


@pytest.mark.parametrize("how", ["erased", "test", "excluded"])
def test_weights_that_have_seen_what_is_no_training_data_now_are_refused(
    begun: tuple[PretrainParams, Project], how: str
) -> None:
    params, project = begun
    path = next(project.tokens_dir.glob("*.parquet"))
    rows = storage.read_table(path, TOKENS, made_by="tokens").to_pylist()
    seen = next(row for row in rows if row["split"] == "train")
    if how == "excluded":
        row = {
            "image_key": "image00", "study_key": seen["study_key"], "split": "train",
            "patient_key": "p", "reason": "film", "data_set": "archive", "test_image": "t",
            "score": 1.0,
        }  # fmt: skip
        table = pa.Table.from_pylist([row], schema=EXCLUDED)
        storage.write_table(project.excluded, table, EXCLUDED)
    else:
        seen["split"] = "test"
        left = [row for row in rows if how == "test" or row is not seen]
        storage.write_table(path, pa.Table.from_pylist(left, schema=TOKENS), TOKENS)
    with pytest.raises(SplitLeakError, match="1 of the 26 studies"):
        find_start(params, project)


@given(
    st.integers(1, 60),
    st.integers(1, 12),
    st.sampled_from([0, 0.1, 0.25, 0.5, 1]),
    st.integers(0, 99),
    st.data(),
)
def test_an_epoch_shows_all_that_is_new_and_the_share_of_the_old(
    pairs: int, batch: int, share: float, seed: int, data: st.DataObject
) -> None:
    old = bytes(data.draw(st.lists(st.integers(0, 1), min_size=pairs, max_size=pairs)))
    if not old.count(0) and not share:
        return
    plan = Plan(pairs, batch, seed, old=old, replay=share)
    steps = 3 * plan.steps_per_epoch
    rows = np.array([row for step in range(steps) for row in plan.global_indices(step)])
    np.testing.assert_array_equal(members.sampled(plan, steps), np.bincount(rows, minlength=pairs))
    first = [np.flatnonzero(rows == pair) for pair in range(pairs)]
    expected = [1 + found[0] // batch if len(found) else 0 for found in first]
    assert members.first_steps(plan, steps).tolist() == expected
    for epoch in range(3):
        order = plan.order(epoch).tolist()
        assert len(set(order)) == len(order) == plan.shown
        assert {pair for pair in range(pairs) if not old[pair]} <= set(order)
        assert sum(old[pair] for pair in order) == math.ceil(share * old.count(1))


def test_without_new_studies_and_replay_there_is_nothing_to_show(tmp_path: Path) -> None:
    project = write_project(tmp_path)
    pairs = len(read_corpus(project).train)
    with pytest.raises(ValueError, match="plan"):
        Plan(pairs, 4, 0, old=b"\1" * pairs, replay=0.0)


def test_the_encoder_begins_with_a_vit_of_another_size(
    params: PretrainParams, project: Project
) -> None:
    other = params.model.model_copy(update={"image_size": params.model.image_size * 2})
    encoder = initial_model(other, seed=3).vision_encoder.eval()
    folder = project.root / "weights" / "vit"
    training = {
        "objective": "captioning", "steps": 1, "train_pairs": 1,
        "params": params.model_dump(mode="json"),
    }  # fmt: skip
    for name, content in repository.contents(encoder, other, training, RecipeParams()).items():
        storage.write_bytes(folder / name, content)
    begun = params.model_copy(update={"init": "weights/vit"})
    digest = storage.sha256_file(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="expected weights with pretrain.init_sha256") as said:
        find_start(begun, project)
    assert digest in said.value.hint
    begun = begun.model_copy(update={"init_sha256": digest})
    start = find_start(begun, project)
    trainer = Trainer(begun, read_corpus(project), torch.device("cpu"), start=start)
    blocks = trainer.model.vision_encoder.blocks.state_dict()
    assert all(torch.equal(blocks[n], t) for n, t in encoder.blocks.state_dict().items())
    run(begun, project)
    written = project.model_dir("captioning")
    assert storage.read_json(written / "training.json", made_by="x")["began_with"] == digest
    exported = export.run(ExportParams(), make_job(project, Machine(workers=1, device="cpu")))
    assert exported["encoder_tensors"]
    assert training_of(written) is None  # nobody knows whom the ViT has seen
    onward = params.model_copy(update={"continue_from": keep_as_start(project)})
    gone_on = find_start(onward, project)
    assert gone_on is not None
    assert gone_on.unknown == digest  # nor, of all that goes on from it, whom they have
    with pytest.raises(MissingArtifactError, match=r"at pretrain\.init, weights/none"):
        find_start(begun.model_copy(update={"init": "weights/none"}), project)


def test_a_beginning_lies_in_the_project(params: PretrainParams) -> None:
    values = params.model_dump()
    for wrong in ({"init": "a/../../b"}, {"init": "/x"}):
        with pytest.raises(ValueError, match="init"):
            PretrainParams.model_validate({**values, **wrong})
