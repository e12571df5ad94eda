"""Presets: what they say a run takes is what plan-memory and the meter compute."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cli_answer import Lapvqa

from flows.commands import cost, edit_settings, plan, plan_memory, presets
from flows.commands.presets import PRESETS
from lapvqa import storage
from lapvqa.errors import ConfigError, StorageFullError
from lapvqa.params import Params, load_params, read_yaml
from lapvqa.pretrain.allocations import Workload
from lapvqa.pretrain.memory import forecast, usable_on_gpu
from lapvqa.pretrain.monitor import flops_per_step
from lapvqa.project import Project
from lapvqa.schemas import REPORT_LANGUAGES, STORED_SIZE

REPOSITORY = Path(__file__).parents[2]
ON_CARDS = [name for name, one in PRESETS.items() if one.memory]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "params", tmp_path / "params")
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def params_of(project: Project, name: str) -> Params:
    presets.apply(project, name)
    return load_params(project.params)


def work_of(params: Params, *, on_gpu: bool) -> Workload:
    """Return the work with reports as long as they may be."""
    longest = params.tokens.max_length - 1
    return Workload(longest, longest, on_gpu=on_gpu)


@pytest.mark.parametrize("name", ["demo", "laptop", "gpu-24", "gpu-141"])
def test_memory_and_flops_are_those_computed(project: Project, name: str) -> None:
    params, preset = params_of(project, name), PRESETS[name]
    work = work_of(params, on_gpu=preset.memory is not None)
    assert forecast(params.pretrain, work).peak == pytest.approx(preset.peak, rel=0.02)
    flops = flops_per_step(
        params.pretrain, images=1, positions=work.length, targets=work.length, vocabulary=50257
    )
    assert flops == pytest.approx(preset.flops, rel=0.02)


def test_each_card_gets_the_largest_micro_batch_that_fits() -> None:
    """Bytes grow nearly evenly with the images of a micro-batch, so two of four tell all."""
    rows = {name: 128 // PRESETS[name].accumulate for name in ON_CARDS}
    least, most = PRESETS["gpu-24"], PRESETS["gpu-141"]
    slope = (most.peak - least.peak) / (rows["gpu-141"] - rows["gpu-24"])
    for name in ON_CARDS:
        one = PRESETS[name]
        assert one.peak == pytest.approx(least.peak + slope * (rows[name] - 16), rel=0.03)
        assert one.peak <= usable_on_gpu(one.memory)
        twice = one.peak + slope * rows[name]
        assert twice > usable_on_gpu(one.memory) or one.accumulate == 1


def test_from_any_preset_to_any_other_nothing_is_left_behind(project: Project) -> None:
    shipped = load_params(project.params)
    ends = {}
    for first in PRESETS:
        for second in ("demo", "gpu-80"):
            params_of(project, first)
            ends.setdefault(second, []).append(params_of(project, second))
    assert all(one == shipped for one in ends["demo"])
    assert all(one == ends["gpu-80"][0] for one in ends["gpu-80"])


def test_the_files_of_presets_set_the_same_keys() -> None:
    def keys(value: Any, prefix: str = "") -> set[str]:
        if not isinstance(value, dict):
            return {prefix}
        return set().union(*(keys(one, f"{prefix}.{name}") for name, one in value.items()))

    files = {one.file for one in PRESETS.values()}
    found = [keys(read_yaml(REPOSITORY / "params" / name)) for name in sorted(files)]
    assert all(one == found[0] for one in found)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'gpu-8'.*\n.*did you mean gpu-80"):
        presets.find("gpu-8")


def test_without_a_gpu_the_archive_decides(project: Project) -> None:
    project.local.write_text("device: cpu\n")
    assert presets.choose(project) == "laptop"
    (project.root / "demo/mimic-cxr").mkdir(parents=True)
    (project.root / "demo/mimic-cxr/DEMO.json").write_text("{}")
    assert presets.choose(project) == "demo"


def test_a_run_says_what_it_would_cut_and_what_a_preset_takes(
    project: Project, lapvqa: Lapvqa
) -> None:
    source = project.root / "own"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.dcm").write_bytes(b"")
    edit_settings.set_source(project, source)
    report = {"study_key": "s", "language": "en", "num_characters": 4000, "num_tokens": 1000,
              "num_kept": 630}  # fmt: skip
    lengths = pa.Table.from_pylist([report], schema=REPORT_LANGUAGES)
    storage.write_table(project.report_languages, lengths, REPORT_LANGUAGES)
    (toy, advice) = presets.unfit(project, load_params(project.params))
    assert "a toy that sees films at 64 px" in toy
    assert "37% of all tokens were cut last time" in toy
    assert "lapvqa run --preset auto" in advice
    said = "\n".join(presets.describe(project, "demo"))
    assert "memory: 720.0 MB of RAM" in said
    assert "for 3 images x 160 epochs" in said
    assert "assumed" in said
    presets.apply(project, "gpu-80")
    assert not list(presets.unfit(project, load_params(project.params)))
    answer = lapvqa("plan")
    assert answer.code == 0, answer.err
    assert "disk: up to " in answer.out


def test_what_the_disk_cannot_hold_is_refused_before_it_starts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = project.root / "own"
    source.mkdir()
    (source / "one.dcm").write_bytes(b"")
    edit_settings.set_source(project, source)
    params = params_of(project, "gpu-80")
    uses = {use.what: use for use in cost.disk_use(project, params)}
    assert uses["images"].most == STORED_SIZE**2
    # 16 x 16 tokens of 1024 halves, of two encoders.
    assert uses["features"].most >= 2 * 256 * 1024 * 2
    assert uses["weights"].most == pytest.approx((3 + 5) * 4 * 357.9e6, rel=0.06)
    room = shutil.disk_usage(project.root)._replace(free=10e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    with pytest.raises(StorageFullError, match="states of the training.*\n.*keep_checkpoints"):
        cost.require_disk(project, {"pretrain"})
    cost.require_disk(project, {"ingest"})


def test_less_of_the_tokens_takes_less_of_the_disk(project: Project) -> None:
    (project.root / "own").mkdir()
    (project.root / "own/one.dcm").write_bytes(b"")
    edit_settings.set_source(project, project.root / "own")
    recipe = {"recipe": {"token_grid": 2}}
    params = load_params(project.params)

    def features(params: Params) -> float:
        return next(use for use in cost.disk_use(project, params) if use.what == "features").most

    whole = features(params)
    edit_settings.set_params(
        project, {"evaluate": {"rrg": recipe, "vqa": recipe, "diffvqa": recipe}}
    )
    # Of the 16 pooled tokens 4 are left; the 16 patches of grounding and the mean stay.
    halves = 2 * 2 * params.pretrain.model.width
    assert whole == (32 + 2) * halves
    assert features(load_params(project.params)) == (20 + 2) * halves


def test_what_is_decoded_of_the_data_sets_takes_disk_too(project: Project) -> None:
    folder = project.root / load_params(project.params).inventory.chexpert
    for name in ("train/a/view1_frontal.jpg", "valid/b/view1_frontal.jpg", "valid.csv"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    there = project.work_dir("features") / "pixels/chexpert/one.npy"
    storage.write_bytes(there, b"0" * 1000)
    uses = {use.what: use for use in cost.disk_use(project, load_params(project.params))}
    decoded = uses["decoded data sets"]
    assert (decoded.most, decoded.there) == (2 * STORED_SIZE**2, 1000)
    assert uses["features"].there == 0
    assert any("decoded data sets" in line for line in cost.lines(
        project, load_params(project.params), {"evaluate@probe_chexpert"}
    ))  # fmt: skip


def test_a_preset_is_looked_at_without_being_run(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before = project.params.read_bytes()
    plan.execute(project, preset="laptop")
    out = capsys.readouterr().out
    laptop = presets.params_of(project, "laptop").pretrain
    assert f"micro-batches of {laptop.batch_size // laptop.accumulate}" in out
    assert "nothing was changed: a look" in out
    with pytest.raises(ConfigError, match="found both"):
        plan_memory.execute(project, params_file=project.params, memory=None, preset="laptop")
    assert project.params.read_bytes() == before
