"""Real radiographs in eleven encodings: every file is in or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_dicom import write_project
from test_ingest import run, table

from lapvqa.images.shards import ShardStore


@pytest.mark.corpus
@pytest.mark.slow
def test_the_corpus_goes_through(tmp_path: Path, corpus: Path) -> None:
    project = write_project(tmp_path, corpus / "mimic-cxr", workers=2)
    counts = run(project)
    assert (counts["files"], counts["companions"], counts["other_files"]) == (498, 0, 187)
    images, studies, rejects = (
        table(project.images), table(project.studies), table(project.rejects),
    )  # fmt: skip
    assert len(images) + sum(row["kind"] == "file" for row in rejects) == 311
    # Five pictures are listed under two patients, with the same instance UID.
    assert [row["reason"] for row in rejects] == ["duplicate_uid"] * 5
    assert len(studies) == 269
    assert len({row["patient_key"] for row in studies}) == 156
    assert sum(row["report"] is not None for row in studies) == 181
    assert len(table(project.labels)) == 269
    assert {row["split"] for row in studies} == {"train", "validate", "test"}
    assert len({row["transfer_syntax"] for row in images}) == 8
    assert {row["voi"] for row in images} == {"lut", "window", "rendered", "percentile"}
    pixels = ShardStore(project.images_dir).read(
        [row["shard"] for row in images], [row["row"] for row in images]
    )
    assert (pixels.reshape(len(images), -1).std(axis=1) > 15).all(), "an image without contrast"
