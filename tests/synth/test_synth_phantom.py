"""The phantom: findings lie where their boxes say, on the side they name, and grow with grade."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lapvqa.synth import mimic_copy
from lapvqa.synth.anatomy import sample_anatomy, sample_pose, shape_of
from lapvqa.synth.findings import (
    ATELECTASIS,
    CARDIOMEGALY,
    CHEXPERT_OF,
    CONSOLIDATION,
    DEVICE,
    EDEMA,
    EFFUSION,
    NODULE,
    PNEUMOTHORAX,
    SIDES,
    ZONES,
    Finding,
    is_normal,
)
from lapvqa.synth.frontal import wall_x
from lapvqa.synth.patient_history import evolve, sample_findings, sample_history, stream
from lapvqa.synth.radiograph import Exposure, chest, render

KINDS = tuple(CHEXPERT_OF)
FIVE = (ATELECTASIS, CARDIOMEGALY, CONSOLIDATION, EDEMA, EFFUSION)
SIDED = (ATELECTASIS, CONSOLIDATION, EFFUSION, NODULE, PNEUMOTHORAX)


def exposure(seed: int, *findings: Finding, view: str = "PA", size: int = 256) -> Exposure:
    anatomy = sample_anatomy(stream(seed, 0))
    return Exposure(anatomy, findings, view, size, 1.0, (seed, 1))


def finding(kind: str, seed: int, grade: float = 0.5, side: str = "right") -> Finding:
    rng = stream(seed, 9)
    return Finding(
        kind,
        grade,
        seed,
        side=side if kind in SIDED else "",
        zone=ZONES[int(rng.integers(3))] if kind in (CONSOLIDATION, NODULE) else "",
        device="pacemaker" if kind == DEVICE else "",
    )


def change(seed: int, one: Finding, *others: Finding) -> tuple[np.ndarray, tuple]:
    """Return |attenuation with - without| one finding, and its boxes."""
    layers, boxes = chest(exposure(seed, *others, one))
    without, _ = chest(exposure(seed, *others))
    return np.abs(layers.attenuation() - without.attenuation()), boxes[-1]


def inside(shape: tuple[int, ...], boxes) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for x0, y0, x1, y1 in boxes:
        mask[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    return mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=8, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(0, 10_000), grade=st.floats(0.02, 0.98))
def test_what_a_finding_changes_lies_in_its_boxes(kind, side, seed, grade):
    changed, boxes = change(seed, finding(kind, seed, grade, side))
    rows, cols = changed.shape
    assert len(boxes) == (2 if kind == EDEMA else 1)
    for x0, y0, x1, y1 in boxes:
        assert 0 <= x0 < x1 <= cols
        assert 0 <= y0 < y1 <= rows
    # Edema thins out without an edge; a reader boxes its core.
    share = 0.6 if kind == EDEMA else 0.85
    assert changed[inside(changed.shape, boxes)].sum() >= share * changed.sum()


@pytest.mark.parametrize("kind", SIDED)
@pytest.mark.parametrize("side", SIDES)
def test_a_finding_lies_on_its_side(kind, side):
    for seed in range(6):
        changed, boxes = change(seed, finding(kind, seed, side=side))
        centre = (changed.sum(axis=0) * np.arange(changed.shape[1])).sum() / changed.sum()
        # The patient's right is on the film's left.
        assert (centre < changed.shape[1] / 2) == (side == "right")
        assert boxes[0][0] < boxes[0][2]


@pytest.mark.parametrize(
    "kind", [CARDIOMEGALY, CONSOLIDATION, EDEMA, EFFUSION, NODULE, PNEUMOTHORAX]
)
def test_a_higher_grade_changes_more(kind):
    for seed in range(4):
        little, _ = change(seed, finding(kind, seed, 0.05))
        much, _ = change(seed, finding(kind, seed, 0.95))
        assert much.sum() > 1.15 * little.sum()


def test_zones_follow_one_another_downwards():
    for seed in range(4):
        tops = []
        for zone in ZONES:
            _, boxes = change(seed, replace(finding(CONSOLIDATION, seed), zone=zone))
            tops.append(boxes[0][1])
        assert tops == sorted(tops)


def test_cardiothoracic_ratio_tells_large_hearts_from_normal_ones():
    for seed in range(40):
        rng, plain = stream(seed, 4), exposure(seed)
        pose = sample_pose(stream(*plain.key), "PA" if seed % 2 else "AP")
        big = finding(CARDIOMEGALY, seed, float(rng.uniform(0.02, 0.98)))
        for findings, enlarged in (((), False), ((big,), True)):
            shape = shape_of(plain.anatomy, pose, findings)
            thorax = 2 * max(wall_x(shape, y) for y in np.linspace(0, shape.height, 50))
            ratio = (shape.heart_left + shape.heart_right) / thorax
            assert (ratio > 0.5) == enlarged


def test_air_is_darker_and_fluid_brighter_than_lung():
    for seed in range(4):
        clear, _ = chest(exposure(seed))
        air = chest(exposure(seed, finding(PNEUMOTHORAX, seed, 0.9)))[0]
        fluid = chest(exposure(seed, finding(EFFUSION, seed, 0.9)))[0]
        before = clear.attenuation()
        assert (air.attenuation() - before).min() < -0.3
        assert (fluid.attenuation() - before).max() > 0.5


def test_the_exposure_is_drawn_without_a_look_at_the_findings():
    """Away from a nodule, window and noise are those of the film without it."""
    shown = exposure(3, finding(NODULE, 3, 0.02))
    with_it, without = render(shown), render(replace(shown, findings=()))
    (box,) = with_it.boxes[0]
    far = ~inside(with_it.film.values.shape, [np.array(box) + [-60, -60, 60, 60]])
    difference = np.abs(with_it.film.values - without.film.values)
    assert np.median(difference[far]) < 0.01
    assert with_it.frame == without.frame


def test_laterals_show_findings_too():
    for kind in KINDS:
        one = finding(kind, 5, 0.8)
        layers, boxes = chest(exposure(5, one, view="LATERAL"))
        clear, _ = chest(exposure(5, view="LATERAL"))
        assert boxes == ((),)
        assert np.abs(layers.attenuation() - clear.attenuation()).max() > 0.15, kind


def test_prevalences():
    studies = [one.findings for one in mimic_copy.plan(11, patients=600, studies=1600)]
    normal = np.mean([is_normal(findings) for findings in studies])
    assert 0.28 <= normal <= 0.38
    for kind in (ATELECTASIS, CARDIOMEGALY, CONSOLIDATION, EDEMA, EFFUSION):
        share = np.mean([any(f.kind == kind for f in findings) for findings in studies])
        assert 0.15 <= share <= 0.30, kind


def test_findings_persist_change_and_resolve():
    stayed = worse = better = gone = new = 0
    for seed in range(300):
        rng = stream(12, seed)
        before = sample_findings(rng)
        after = {f.kind: f for f in evolve(rng, before)}
        for one in before:
            if one.kind not in after:
                gone += 1
                continue
            stayed += 1
            worse += after[one.kind].grade > one.grade
            better += after[one.kind].grade < one.grade
        new += sum(kind not in {f.kind for f in before} for kind in after)
    assert min(stayed, worse, better, gone, new) > 20


def test_findings_of_one_side_never_hide_one_another():
    for seed in range(400):
        findings = sample_findings(stream(13, seed))
        for side in SIDES:
            kinds = [f.kind for f in findings if f.side == side]
            zones = [f.zone for f in findings if f.side == side and f.zone]
            assert len(zones) == len(set(zones))
            if PNEUMOTHORAX in kinds:
                assert kinds == [PNEUMOTHORAX]
            if EFFUSION in kinds or ATELECTASIS in kinds:
                assert "lower" not in zones
                assert not {EFFUSION, ATELECTASIS} <= set(kinds)


def test_place_tells_more_than_brightness():
    """What gives findings away must be where things are, not how bright or rough a film is."""
    labels, pictures, patients = [], [], []
    for patient in range(110):
        anatomy = sample_anatomy(stream(31, patient))
        for order, findings in enumerate(sample_history(stream(32, patient), 3)):
            taken = render(Exposure(anatomy, findings, "AP", 128, 1.0, (33, patient, order)))
            pictures.append(taken.film.displayed())
            labels.append([any(f.kind == kind for f in findings) for kind in FIVE])
            patients.append(patient)
    images = np.stack(pictures).astype(np.float32) / 255
    truth, train = np.array(labels), np.array(patients) % 3 > 0
    pixels = np.stack(
        [cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA) for image in images]
    )
    place = mean_auc(PCA(60, random_state=0), pixels.reshape(len(pixels), -1), truth, train)
    brightness = mean_auc(
        "passthrough", np.stack([overall(image) for image in images]), truth, train
    )
    assert place > 0.78
    assert brightness < 0.70
    assert place - brightness > 0.12


def overall(image: np.ndarray) -> np.ndarray:
    slopes = np.abs(np.diff(image, axis=0)).mean(), np.abs(np.diff(image, axis=1)).mean()
    return np.array([image.mean(), image.std(), *np.percentile(image, range(5, 100, 10)), *slopes])


def mean_auc(reduce, features: np.ndarray, truth: np.ndarray, train: np.ndarray) -> float:
    scores = []
    for label in truth.T:
        model = make_pipeline(reduce, StandardScaler(), LogisticRegression(C=0.03, max_iter=500))
        model.fit(features[train], label[train])
        scores.append(roc_auc_score(label[~train], model.decision_function(features[~train])))
    return float(np.mean(scores))
