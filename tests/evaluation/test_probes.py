"""The two probe evaluations end to end on small datasets in the published layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import make_job
from watched_computing import nothing_outside

from lapvqa import storage
from lapvqa.datasets import image_folder
from lapvqa.datasets.chexpert import read_chexpert
from lapvqa.datasets.pictures import read_image, read_or_none
from lapvqa.errors import SourceError, SplitLeakError
from lapvqa.evaluation import contract, evaluate, features
from lapvqa.evaluation.evaluate import pipeline_encoders
from lapvqa.machine import Machine
from lapvqa.networks.device import ROWS_ON_CPU
from lapvqa.probe import judge as probe_judge
from lapvqa.probe.on_chexpert import TASK as CHEXPERT
from lapvqa.probe.on_nih14 import TASK as NIH14
from lapvqa.schemas import PROBE_PREDICTIONS

FILES = ("predictions.parquet", "metrics.json", "curves.csv")


def run(task, params, job):
    with nothing_outside():
        return evaluate.evaluate(task, pipeline_encoders(job), params, job)


def results(project, task: str) -> tuple[dict, list[bytes]]:
    folder = project.result_dir(task)
    content = [(folder / name).read_bytes() for name in FILES]
    return json.loads(content[1]), content


def test_chexpert_from_files_to_metrics(chexpert_folder, params, project, machine, recorder):
    counts = run(CHEXPERT, params, make_job(project, machine, recorder))
    metrics, _ = results(project, "probe_chexpert")
    assert counts["num_samples"] == metrics["num_samples"] == 32
    assert metrics["num_patients"] == 16
    assert metrics["protocol"]["uncertain"] == "zeros"
    assert metrics["protocol"]["unreadable_images"] == 0
    assert metrics["protocol"]["patients_validate"] == 5
    digests = {metrics["protocol"][f"encoder_sha256_{s}"] for s in ("trained", "untrained")}
    assert len(digests) == 2
    table = storage.read_table(
        project.result_dir("probe_chexpert") / "predictions.parquet", PROBE_PREDICTIONS, made_by="x"
    )
    assert table.num_rows == 32 * 5 * 2
    assert not [one for one in table["sample"].to_pylist() if "patient" in one]


def test_nih14_from_files_to_metrics(nih14_folder, params, project, machine, recorder):
    run(NIH14, params, make_job(project, machine, recorder))
    metrics, _ = results(project, "probe_nih14")
    assert (metrics["num_samples"], metrics["num_patients"]) == (28, 14)
    assert len(metrics["systems"]["trained"]) == 4 * 15  # AUC, AUPRC, Brier, ECE; means
    assert metrics["systems"]["trained"]["auc/Hernia"]["value"] is None
    assert [line for line in metrics["undefined"] if line.startswith("auc/Hernia: no predictions")]


@pytest.mark.parametrize("evaluation", [CHEXPERT, NIH14])
def test_same_input_same_bytes_with_and_without_the_cache_on_any_number_of_cores(
    evaluation, chexpert_folder, nih14_folder, params, project, machine, recorder
):
    task = evaluation.name
    run(evaluation, params, make_job(project, machine, recorder))
    _, first = results(project, task)
    run(evaluation, params, make_job(project, machine, recorder))
    _, cached = results(project, task)
    for path in sorted(project.work_dir("features").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    run(evaluation, params, make_job(project, Machine(workers=5, device="cpu"), recorder))
    assert torch.get_num_threads() == 1
    _, fresh = results(project, task)
    assert first == cached == fresh


@pytest.mark.parametrize(("evaluation", "key"), [(CHEXPERT, "chexpert"), (NIH14, "nih14")])
def test_an_absent_dataset_is_not_computed_and_says_what_to_set(
    evaluation, key, params, project, machine, recorder
):
    counts = run(evaluation, params, make_job(project, machine, recorder))
    metrics, _ = results(project, evaluation.name)
    assert counts["status"] == metrics["status"] == "not computed"
    assert f"inventory.{key}" in metrics["reason"]
    assert f"paths.{key}" in metrics["reason"]
    assert str(project.root) not in metrics["reason"]


def test_an_encoder_that_sees_gets_one_and_a_blind_one_a_half(
    chexpert_folder, planted, params, project, machine, recorder
):
    source = image_folder.open_folder("chexpert", make_job(project, machine))
    dataset = read_chexpert(source.folder, source.files, uncertain="zeros")
    found = probe_judge.extract(
        planted, source, dataset.images, job=make_job(project, machine, recorder)
    )
    predictions, protocol = probe_judge.predict(dataset, found.systems, c_grid=[0.1, 1.0])
    contract.publish(
        CHEXPERT,
        predictions,
        protocol=protocol,
        folder=project.result_dir("probe_chexpert"),
        common=params.common,
    )
    metrics, _ = results(project, "probe_chexpert")
    assert metrics["systems"]["trained"]["mean_auc"]["value"] > 0.99
    assert metrics["systems"]["untrained"]["mean_auc"]["value"] < 0.7
    assert metrics["systems"]["untrained"]["mean_auc"]["low"] < 0.5
    assert metrics["differences"]["trained-untrained"]["mean_auc"]["low"] > 0.2


def test_a_leaked_patient_stops_the_evaluation(chexpert_folder, params, project, machine, recorder):
    line = (chexpert_folder / "train.csv").read_text().splitlines()[1]
    with (chexpert_folder / "valid.csv").open("a") as handle:
        handle.write(line + "\n")
    with pytest.raises(SplitLeakError):
        run(CHEXPERT, params, make_job(project, machine, recorder))
    assert not project.result_dir("probe_chexpert").exists()


def test_one_broken_image_is_counted_and_left_out(
    chexpert_folder, params, project, machine, recorder
):
    broken = chexpert_folder / "valid" / "patient64541" / "study1" / "view1_frontal.jpg"
    broken.write_bytes(b"not a jpeg")
    run(CHEXPERT, params, make_job(project, machine, recorder))
    metrics, _ = results(project, "probe_chexpert")
    assert metrics["protocol"]["unreadable_images"] == 1
    assert metrics["protocol"]["unreadable_images_test"] == 1
    assert metrics["num_samples"] == 31


def test_a_film_of_the_test_under_another_patient_is_not_learnt_from(
    chexpert_folder, params, project, machine, recorder
):
    tested = min(chexpert_folder.glob("valid/*/*/view1_frontal.jpg"))
    copied = min(chexpert_folder.glob("train/*/*/view1_frontal.jpg"))
    copied.write_bytes(tested.read_bytes())
    run(CHEXPERT, params, make_job(project, machine, recorder))
    protocol = results(project, "probe_chexpert")[0]["protocol"]
    assert protocol["left_out_film_of_test"] == 1
    assert protocol["unreadable_images"] == 0


def test_many_missing_images_stop_before_any_is_decoded(
    nih14_folder, list_again, params, project, machine, recorder
):
    for path in sorted(nih14_folder.glob("images_003/images/*.png")):
        path.unlink()
    list_again("nih14")
    with pytest.raises(SourceError, match="of 108 listed images are missing"):
        run(NIH14, params, make_job(project, machine, recorder))
    assert not project.work_dir("features").exists()


class TestFeatures:
    def extract(self, encoders, project, machine, recorder, paths=None):
        source = image_folder.open_folder("chexpert", make_job(project, machine))
        paths = paths or read_chexpert(source.folder, source.files, uncertain="zeros").images
        return probe_judge.extract(
            encoders, source, paths, job=make_job(project, machine, recorder)
        )

    def test_computed_once_per_encoder_and_images(
        self, chexpert_folder, planted, project, machine, recorder
    ):
        first = self.extract(planted, project, machine, recorder)
        calls = planted["trained"].calls
        assert calls == 1 + -(-len(first.readable) // ROWS_ON_CPU)  # 1: the fingerprint
        second = self.extract(planted, project, machine, recorder)
        assert planted["trained"].calls == calls + 1
        for name in planted:
            np.testing.assert_array_equal(first.systems[name], second.systems[name])

    def test_other_weights_are_computed_anew(
        self, chexpert_folder, planted, project, machine, recorder
    ):
        first = self.extract(planted, project, machine, recorder)
        planted["trained"].weight.data *= 2
        second = self.extract(planted, project, machine, recorder)
        np.testing.assert_allclose(
            second.systems["trained"], 2 * first.systems["trained"], rtol=1e-6
        )

    def test_the_same_weights_in_another_architecture_are_computed_anew(
        self, chexpert_folder, planted, project, machine, recorder
    ):
        assert len({features.encoder_digest(encoder) for encoder in planted.values()}) == 1
        found = self.extract(planted, project, machine, recorder)
        assert not np.array_equal(found.systems["trained"], found.systems["untrained"])

    def test_a_changed_image_is_decoded_anew_and_the_old_chunk_is_dropped(
        self, chexpert_folder, list_again, planted, project, machine, recorder
    ):
        first = self.extract(planted, project, machine, recorder)
        target = chexpert_folder / "train" / "patient00001" / "study1" / "view1_frontal.jpg"
        other = chexpert_folder / "train" / "patient00002" / "study2" / "view1_frontal.jpg"
        target.write_bytes(other.read_bytes())
        list_again("chexpert")
        second = self.extract(planted, project, machine, recorder)
        assert not np.array_equal(first.systems["trained"], second.systems["trained"])
        kept = (project.work_dir("features") / "pixels" / "chexpert").glob("*")
        assert len({path.stem for path in kept}) == 1

    def test_pixels_come_in_any_order_from_any_chunk(
        self, chexpert_folder, project, machine, monkeypatch
    ):
        source = image_folder.open_folder("chexpert", make_job(project, machine))
        paths = sorted(path for path in source.files if path.endswith(".jpg"))[:12]
        monkeypatch.setattr(image_folder, "CHUNK", 5)
        decoded = image_folder.decode(source, paths, read_or_none, job=make_job(project, machine))
        order = [11, 0, 4, 5, 5, 10]
        found = decoded.pixels(order)
        for image, number in zip(found, order, strict=True):
            np.testing.assert_array_equal(image, read_image(chexpert_folder / paths[number]).pixels)

    def test_chunks_and_batches_do_not_change_the_features(
        self, chexpert_folder, project, machine, recorder, monkeypatch
    ):
        encoders = evaluate.load_encoders(evaluate.encoder_folder(make_job(project)))
        whole = self.extract(encoders, project, machine, recorder)
        monkeypatch.setattr(features, "CHUNK", 7)
        pieces = self.extract(encoders, project, machine, recorder)
        for name in encoders:
            np.testing.assert_allclose(whole.systems[name], pieces.systems[name], atol=1e-6)

    def test_unreadable_images_have_no_features(
        self, chexpert_folder, planted, project, machine, recorder
    ):
        source = image_folder.open_folder("chexpert", make_job(project, machine))
        images = read_chexpert(source.folder, source.files, uncertain="zeros").images[:3]
        paths = (images[0], "no/such.jpg", images[1])
        found = self.extract(planted, project, machine, recorder, paths=paths)
        assert found.readable.tolist() == [True, False, True]
        assert found.systems["trained"].shape == (2, 16)

    def test_mean_over_the_pooled_tokens_of_the_encoder(
        self, chexpert_folder, project, machine, recorder
    ):
        from lapvqa.evaluation.image_encoder import OwnEncoder
        from lapvqa.images.transforms import to_input
        from lapvqa.pretrain.files import load_encoder

        source = image_folder.open_folder("chexpert", make_job(project, machine))
        path = read_chexpert(source.folder, source.files, uncertain="zeros").images[0]
        encoder = load_encoder(evaluate.encoder_folder(make_job(project)))
        with torch.no_grad():
            pixels = torch.from_numpy(read_image(Path(source.folder) / path).pixels)[None]
            expected = encoder(to_input(pixels, encoder.image_size)).mean(dim=1).numpy()
        found = self.extract(
            {"trained": OwnEncoder(encoder)}, project, machine, recorder, paths=(path,)
        )
        np.testing.assert_allclose(found.systems["trained"], expected, atol=1e-6)


def test_digest_of_an_encoder_covers_every_tensor(planted):
    before = features.encoder_digest(planted["trained"])
    planted["trained"].weight.data += 1e-6
    assert features.encoder_digest(planted["trained"]) != before
