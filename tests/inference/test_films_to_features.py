"""Films to features: those of the pipeline, whatever a client brings; never silently others."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from demo_project import MACHINE, build
from jobs import make_job
from PIL import Image
from pydicom import dcmread
from watched_computing import nothing_outside

import lapvqa
from lapvqa import Encoder, storage
from lapvqa.datasets import image_folder
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import MissingArtifactError, SourceError
from lapvqa.evaluation.evaluate import load_encoders
from lapvqa.inference.encoder import RejectedFilmsError
from lapvqa.params import ModelParams
from lapvqa.probe import judge as probe
from lapvqa.project import Project

SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2,
    decoder_width=32, decoder_depth=1, decoder_heads=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    with nothing_outside():
        yield


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return build(tmp_path_factory, tmp_path_factory.mktemp("inference"), SIZES)


@pytest.fixture(scope="module")
def encoder(demo: Project) -> Encoder:
    return Encoder.load(demo.model_dir("captioning"), machine=MACHINE)


@pytest.fixture(scope="module")
def dicom(demo: Project) -> list[Path]:
    return sorted((demo.root / "demo" / "mimic-cxr").rglob("*.dcm"))[:5]


def test_features_are_those_of_the_evaluation_bit_for_bit(demo: Project, encoder: Encoder) -> None:
    job = make_job(demo, MACHINE)
    source = image_folder.open_folder("chexpert", job)
    assert source is not None
    paths = sorted(path for path in source.files if path.endswith(".jpg"))[:40]
    system = {"trained": load_encoders(demo.model_dir("captioning"))["trained"]}
    judged = probe.extract(system, source, paths, job=job).systems["trained"]
    found = encoder([source.folder / path for path in paths])
    np.testing.assert_array_equal(found, judged)
    alone = encoder(source.folder / paths[-1])  # whatever it comes together with
    np.testing.assert_array_equal(alone[0], judged[-1])


def test_pixels_are_those_that_ingest_stored(
    demo: Project, encoder: Encoder, dicom: list[Path]
) -> None:
    rows = pq.read_table(demo.images, columns=["file_sha256", "pixels_sha256"]).to_pylist()
    stored = {row["file_sha256"]: row["pixels_sha256"] for row in rows}
    (films,) = encoder.reader.batches(dicom)
    known = [film for film in films if film.sha256 in stored]
    assert len(known) > 2
    for film in known:
        assert film.pixels is not None
        assert image_folder.digest(film.pixels) == stored[film.sha256]


def test_a_film_gives_the_same_however_it_comes(
    encoder: Encoder, dicom: list[Path], tmp_path: Path
) -> None:
    data = dicom[0].read_bytes()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "IM0001").write_bytes(data)
    (tmp_path / "deep" / "film.dcm.gz").write_bytes(gzip.compress(data))
    (tmp_path / "deep" / "readme.txt").write_text("no film")
    expected = encoder(dicom[0])
    assert expected.shape == (1, 32)
    for source in (str(dicom[0]), data, [data], tmp_path / "deep" / "film.dcm.gz"):
        np.testing.assert_array_equal(encoder(source), expected)
    names = [film.name for film, _ in encoder.stream(tmp_path)]
    assert names == [f"{tmp_path}/deep/er/IM0001", f"{tmp_path}/deep/film.dcm.gz"]
    np.testing.assert_array_equal(encoder(tmp_path), np.concatenate([expected, expected]))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_an_array_gives_what_its_picture_gives(
    encoder: Encoder, tmp_path: Path, kind: type[np.uint8] | type[np.uint16]
) -> None:
    top = np.iinfo(kind).max
    values = (np.linspace(0, 1, 300) * np.linspace(0.2, 1, 200)[:, None] * top).astype(kind)
    Image.fromarray(values).save(tmp_path / "film.png")
    np.testing.assert_array_equal(encoder(values), encoder(tmp_path / "film.png"))


def test_stored_squares_have_a_way_of_their_own(encoder: Encoder, dicom: list[Path]) -> None:
    (films,) = encoder.reader.batches(dicom)
    squares = np.stack([film.pixels for film in films if film.pixels is not None])
    np.testing.assert_array_equal(encoder.of_stored(squares), encoder(dicom))
    assert encoder.of_stored(squares, kind="patches").shape == (len(squares), 16, 32)
    with pytest.raises(ValueError, match=r"found uint8 \[1, 200, 300\]"):
        encoder.of_stored(np.zeros((1, 200, 300), np.uint8))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.linspace(0, 1, 60_000).reshape(200, 300), r"float64 \[200, 300\] of 0 to 1"),
        (np.zeros((200, 300, 3), np.uint8), r"uint8 \[200, 300, 3\]"),
        (np.zeros((200, 300), np.int64), r"int64 \[200, 300\]"),
    ],
)
def test_an_array_that_is_no_film_is_an_error(encoder: Encoder, values, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        encoder([values])


def test_what_cannot_be_used_has_a_reason(
    encoder: Encoder, dicom: list[Path], tmp_path: Path
) -> None:
    whole = dicom[0].read_bytes()
    cut, knee, blank = (tmp_path / name for name in ("cut.dcm", "knee.dcm", "blank.png"))
    cut.write_bytes(whole[: len(whole) // 2])
    dataset = dcmread(dicom[0])
    dataset.BodyPartExamined = "KNEE"
    dataset.save_as(knee)
    Image.fromarray(np.full((300, 300), 9, np.uint8)).save(blank)
    sources = [dicom[0], cut, tmp_path / "none.dcm", knee, blank, b"no film", dicom[1]]
    encoded = list(encoder.stream(sources))
    assert [film.reason for film, _ in encoded] == [
        None, Reason.TRUNCATED, Reason.UNREADABLE, Reason.NOT_A_CHEST, Reason.CONSTANT_IMAGE,
        Reason.NOT_DICOM, None,
    ]  # fmt: skip
    assert [features is None for _, features in encoded] == [False, *[True] * 5, False]
    np.testing.assert_array_equal(encoded[-1][1], encoder(dicom[1])[0])
    with pytest.raises(RejectedFilmsError, match="5 films cannot be used: truncated 1") as error:
        encoder(sources)
    assert len(error.value.films) == 5


def test_nothing_there_is_an_error(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="found none among 0 files"):
        encoder(tmp_path)
    with pytest.raises(MissingArtifactError):
        Encoder.load(tmp_path / "models")
    assert encoder([]).shape == (0, 32)


def test_the_digest_is_that_of_the_protocol(demo: Project, encoder: Encoder) -> None:
    folder = demo.model_dir("captioning")
    assert (encoder.digest, encoder.width) == (Encoder.load(folder / "encoder_final.pt").digest, 32)
    assert storage.sha256_file(folder / "encoder_final.pt") != encoder.digest


def test_a_fault_below_the_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of somebody's own module beside the script; "from" tells nothing of AttributeError."""

    def breaks(name: str) -> None:
        raise AttributeError("module 'inspect' has no attribute 'signature'")

    monkeypatch.setattr(lapvqa, "import_module", breaks)
    with pytest.raises(ImportError, match="Encoder cannot be imported: module 'inspect' has no"):
        from lapvqa import Encoder as _  # noqa: F401


def test_importing_the_package_imports_no_torch() -> None:
    code = "import lapvqa, sys; assert 'torch' not in sys.modules; from lapvqa import Encoder"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
