"""The demo's copy of MIMIC-Ext-MIMIC-CXR-VQA, by its reader."""

from __future__ import annotations

from lapvqa.datasets.ext_vqa import read_ext_vqa


def test_every_question_is_read_and_no_patient_leaks(demo, demo_stored):
    dataset = read_ext_vqa(
        demo / "mimic-ext-mimic-cxr-vqa",
        demo_stored,
        shared_patients="raise",
        pretrained_patients="raise",
    )
    assert dataset.account.read == dataset.account.kept > 100
    assert dataset.facts["questions_with_empty_answer_kept"] > 0
    rows = dataset.table.to_pylist()
    assert {row["split"] for row in rows} == {"train", "validate", "test"}
    assert all(row["split"] == row["pretrain_split"] for row in rows)
    assert {row["answer"] for row in rows} >= {"yes", "no", "none", "ap", "pa"}
    views = {row["answer"] for row in rows if row["content_type"] == "plane"}
    assert views == {"yes", "no", "ap", "pa"}
