"""The archive is whole or absent, and depends on its parameters only."""

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from others_at_work import is_called

from lapvqa.errors import ConfigError, SourceError
from lapvqa.synth.__main__ import main
from lapvqa.synth.archive import write_demo

SMALL = {"patients": 10, "studies": 13}


def content(root: Path) -> dict[str, tuple[str, int]]:
    """Every file's sha256 and modification time."""
    return {
        str(path.relative_to(root)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lapvqa-synth"
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    root = tmp_path_factory.mktemp("small")
    return root, write_demo(root, **SMALL, seed=1, workers=1)


def test_bytes_and_times_do_not_depend_on_the_number_of_workers(built, tmp_path):
    counts = write_demo(tmp_path, **SMALL, seed=1, workers=2)
    assert counts == built[1]
    assert content(tmp_path) == content(built[0])


def test_another_seed_gives_another_archive(built, tmp_path):
    write_demo(tmp_path, **SMALL, seed=2, workers=1)
    ours, theirs = content(built[0]), content(tmp_path)
    same = [name for name in ours if theirs.get(name) == ours[name]]
    assert not [name for name in same if name.endswith((".dcm", ".dicom", ".jpg", ".png"))]


def test_counts_are_the_files_there(built):
    root, counts = built
    assert counts["mimic-cxr"] == len(list(root.glob("mimic-cxr/**/*.dcm")))
    assert counts["mimic-cxr studies"] == SMALL["studies"]
    assert counts["CheXpert-v1.0-small"] == len(list(root.glob("CheXpert-v1.0-small/**/*.jpg")))
    assert counts["nih-cxr14"] == len(list(root.glob("nih-cxr14/**/*.png")))
    assert counts["vindr-cxr"] == len(list(root.glob("vindr-cxr/**/*.dicom")))


def test_the_mimic_copy_is_that_of_the_first_version(built):
    """Its figures are published; other datasets may come and grow. Pixels differ by machine."""
    folder, digest = built[0] / "mimic-cxr", hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".dcm" and path.name != "DEMO.json":
            content = path.read_bytes()
            text = gzip.decompress(content) if path.suffix == ".gz" else content
            digest.update(f"{path.relative_to(folder).as_posix()} {len(text)}\n".encode() + text)
    expected = "2aeef657d1d26b3a3835806ea5cde7bdd384bc2757096800f73bfaf94ee6f5b7"
    assert digest.hexdigest() == expected


def test_a_complete_archive_is_left_alone(built):
    calls = []
    counts = write_demo(built[0], **SMALL, seed=1, on_progress=lambda *a: calls.append(a))
    assert counts == built[1]
    assert calls == []


def test_an_interrupted_build_has_no_manifest_and_is_made_again(built, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path, **SMALL, seed=1, workers=1, on_progress=stop)
    assert not (tmp_path / "mimic-cxr" / "DEMO.json").exists()
    (tmp_path / "nih-cxr14").mkdir(exist_ok=True)
    (tmp_path / "nih-cxr14" / "left-over.png").write_bytes(b"half")
    seen = []
    write_demo(tmp_path, **SMALL, seed=1, workers=1, on_progress=lambda *a: seen.append(a))
    assert content(tmp_path) == content(built[0])
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))


def test_a_ctrl_c_while_the_workers_start_leaves_no_traceback(tmp_path):
    """A terminal interrupts the whole group, also workers that still import."""
    script = f"""
from pathlib import Path
from lapvqa.runtime import interruptible
from lapvqa.synth.archive import write_demo
if __name__ == "__main__":
    with interruptible():
        try:
            write_demo(Path({str(tmp_path / "demo")!r}), **{SMALL}, seed=1, workers=2)
        except KeyboardInterrupt:
            print("interrupted")
"""
    (tmp_path / "draw.py").write_text(script)
    drawing = subprocess.Popen(
        [sys.executable, tmp_path / "draw.py"], start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    workers: list[psutil.Process] = []
    while len(workers) < 2 and drawing.poll() is None:
        time.sleep(0.01)
        children = psutil.Process(drawing.pid).children()
        workers = [one for one in children if is_called(one, "spawn_main")]
    time.sleep(0.2)  # into their imports
    os.killpg(drawing.pid, signal.SIGINT)
    out, err = drawing.communicate(timeout=120)
    assert (out, err, drawing.returncode) == ("interrupted\n", "", 0)
    assert not [worker for worker in workers if worker.is_running()]


def test_the_manifest_says_what_was_asked_for_and_other_parameters_rebuild(tmp_path):
    write_demo(tmp_path, patients=10, studies=10, seed=5, workers=1)
    manifest = tmp_path / "mimic-cxr" / "DEMO.json"
    assert json.loads(manifest.read_text()) == {
        "generator": "lapvqa.synth", "version": 2, "seed": 5, "patients": 10, "studies": 10,
    }  # fmt: skip
    before = content(tmp_path)
    write_demo(tmp_path, patients=10, studies=11, seed=5, workers=1)
    assert json.loads(manifest.read_text())["studies"] == 11
    assert content(tmp_path) != before


def test_datasets_from_elsewhere_are_never_overwritten(tmp_path):
    real = tmp_path / "mimic-cxr" / "files" / "real.dcm"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"priceless")
    with pytest.raises(SourceError, match="mimic-cxr from elsewhere"):
        write_demo(tmp_path, **SMALL)
    assert real.read_bytes() == b"priceless"


@pytest.mark.parametrize(("patients", "studies"), [(10, 9), (10, 61), (3, 5)])
def test_impossible_sizes_are_refused(tmp_path, patients, studies):
    with pytest.raises(ConfigError, match=f"{studies} studies among {patients} patients"):
        write_demo(tmp_path, patients=patients, studies=studies)
    assert not any(tmp_path.iterdir())


def test_the_command_line_reports_and_fails_in_words(built, capsys, tmp_path):
    sizes = ["--patients", "10", "--studies", "13", "--seed", "1"]
    assert main([str(built[0]), *sizes]) == 0
    assert "mimic-cxr studies: 13" in capsys.readouterr().out
    assert main([str(tmp_path), "--patients", "3", "--studies", "5"]) == 2
    assert "at least 10 patients" in capsys.readouterr().err
