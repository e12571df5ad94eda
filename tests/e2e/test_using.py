"""A trained model used by hand writes and answers what its evaluations recorded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import BIN, Scratch, change
from ruamel.yaml import YAML

from flows.try_page.looking import Looker
from lapvqa import Encoder
from lapvqa.errors import CheckpointError, ConfigError
from lapvqa.inference.words import Answerer, Captioner
from lapvqa.job import open_job
from lapvqa.machine import Machine
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder

sys.path.append(str(Path(__file__).parents[1] / "report"))
from keyboard import Keyboard, keyboard, needs_chromium

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MACHINE = Machine(workers=1, device="cpu")


@pytest.fixture(scope="module")
def films(finished: Scratch) -> dict[str, Path]:
    """Key of each stored image -> its file in the archive."""
    files = (finished.root / "demo" / "mimic-cxr").rglob("*.dcm")
    by_digest = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files}
    images = pq.read_table(finished.root / "data/images.parquet").to_pylist()
    return {image["image_key"]: by_digest[image["file_sha256"]] for image in images}


def predictions(finished: Scratch, task: str) -> list[dict[str, str]]:
    rows = pq.read_table(finished.root / f"results/{task}/predictions.parquet").to_pylist()
    return [row for row in rows if row["system"] == "trained"]


def test_a_caption_is_the_report_that_was_judged(finished: Scratch, films: dict[str, Path]) -> None:
    images = pq.read_table(finished.root / "data/images.parquet").to_pylist()
    frontal = {
        image["study_key"]: image["image_key"]
        for image in sorted(images, key=lambda image: image["image_key"], reverse=True)
        if image["view"] in ("PA", "AP", "FRONTAL")
    }
    rows = predictions(finished, "rrg")
    params = load_params(finished.root / "params.yaml").evaluate.rrg
    captioner = Captioner.load(
        finished.root / "models/captioning", machine=MACHINE, max_new_tokens=params.max_new_tokens
    )
    written = [text for _, text in captioner.stream(films[frontal[row["sample"]]] for row in rows)]
    assert written == [row["hypothesis"] for row in rows]
    assert len(written) > 3


def test_an_answer_is_the_one_that_was_judged(finished: Scratch, films: dict[str, Path]) -> None:
    encoder = Encoder.load(finished.root / "models/captioning", machine=MACHINE)
    answerer = Answerer.load(encoder, Project(finished.root).result_dir("vqa"))
    rows = predictions(finished, "vqa")[:12]
    for row in rows:
        ((film, answer),) = answerer.stream(films[row["image"]], row["question"])
        assert film.reason is None
        assert answer == row["hypothesis"]
    with pytest.raises(ConfigError, match="expected a question of 1 to 134 tokens, found 0"):
        list(answerer.stream([], ""))


def test_a_head_is_for_its_own_encoder_alone(finished: Scratch, tmp_path: Path) -> None:
    other = Encoder.load(finished.root / "models/captioning", machine=MACHINE)
    other.digest = "0" * 64
    with pytest.raises(CheckpointError, match="found 000000000000"):
        Answerer.load(other, Project(finished.root).result_dir("vqa"))


def test_the_command_leaves_a_row_per_film(
    finished: Scratch, films: dict[str, Path], tmp_path: Path
) -> None:
    first = sorted(films.values())[0]
    (tmp_path / "no_film.dcm").write_bytes(b"x" * 500)
    out = tmp_path / "features.parquet"
    done = finished.lapvqa("embed", str(first), str(tmp_path / "no_film.dcm"), "--out", str(out))
    table = pq.read_table(out)
    encoder = Encoder.load(finished.root / "models/captioning", machine=MACHINE)
    assert table.schema.metadata[b"encoder_sha256"].decode() == encoder.digest
    taken, rejected = table.to_pylist()
    assert (taken["path"], taken["reason"]) == (str(first), None)
    assert len(taken["feature"]) == encoder.width
    assert (rejected["feature"], rejected["reason"]) == (None, "not_dicom")
    assert "rejected 1: not_dicom" in done.stderr
    (tmp_path / "theirs.parquet").write_bytes(b"somebody's")
    refused = finished.lapvqa(
        "embed", str(first), "--out", str(tmp_path / "theirs.parquet"), check=False
    )
    assert refused.returncode == 2
    assert (tmp_path / "theirs.parquet").read_bytes() == b"somebody's"


def test_the_exported_folder_has_the_card_and_its_licence(
    finished: Scratch, tmp_path: Path
) -> None:
    folder = tmp_path / "hub"
    finished.lapvqa("export", str(folder), "--license", "apache-2.0")
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    front = YAML(typ="safe").load((folder / "README.md").read_text().split("---")[1])
    assert front["license"] == "apache-2.0"
    results = front["model-index"][0]["results"]
    assert {"probe_chexpert", "rrg", "ad"} <= {one["dataset"]["name"] for one in results}
    assert all(isinstance(one["metrics"][0]["value"], float) for one in results)
    finished.lapvqa("export", str(folder), "--license", "apache-2.0")
    assert first == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").touch()
    refused = finished.lapvqa("export", str(tmp_path / "theirs"), check=False)
    assert refused.returncode == 2
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["thesis.tex"]


def test_the_page_of_the_first_hour_prints_what_a_person_gets(
    finished: Scratch, repository: Path, tmp_path: Path
) -> None:
    """Its commands are run, but for those that run stages; what another model says is another."""
    root = tmp_path / "lapvqa"
    root.mkdir()
    for path in finished.root.iterdir():
        (root / path.name).symlink_to(path)
    (root / "params.yaml").unlink()
    shutil.copy(finished.root / "params.yaml", root)
    change(root / "params.yaml", {"ingest": {"body_part": "chest"}})  # as the demo has it
    spec = importlib.util.spec_from_file_location("run_page", repository / "docs/run_page.py")
    assert spec is not None
    assert spec.loader is not None
    run_page = sys.modules["run_page"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run_page)
    environment = {**finished.environment, "COLUMNS": run_page.WIDTH}
    compared = []
    for _, block in run_page.blocks((repository / "docs/first-hour.md").read_text()):
        words = " ".join(command.text for command in block.commands)
        if block.by_hand or "lapvqa run" in words or "lapvqa rejects" in words:
            continue
        ran = run_page.run(block, root, environment)
        if "inspect" in words or "python" in words:
            assert ran == block.commands
            compared.append(words)
    assert len(compared) == 3


# The page


@pytest.fixture(scope="module")
def address(finished: Scratch) -> Iterator[str]:
    """Of the page, served by the command."""
    with subprocess.Popen(
        [str(BIN / "lapvqa"), "try", "--no-browser"], cwd=finished.root, env=finished.environment,
        stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        found = None
        for line in server.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                break
        assert found, server.poll()
        yield found[0]
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0


def post(address: str, data: bytes, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(f"{address}film", data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_page_is_for_a_browser_on_this_machine(address: str) -> None:
    assert post(address, b"x")[0] == 403  # as a page from elsewhere would send it
    assert post(address, b"x", Host="lapvqa.example", **{"X-Lapvqa": "try"})[0] == 400
    status, answer = post(address, b"no film", **{"X-Lapvqa": "try"})
    assert status == 200
    assert json.loads(answer)["rejected"].startswith("not_dicom")


@needs_chromium
@pytest.mark.parametrize("width", [400, 1280])
def test_a_film_that_is_chosen_is_told_of(
    address: str, films: dict[str, Path], tmp_path: Path, width: int
) -> None:
    with keyboard(tmp_path / "profile") as page:
        for domain in ("Network", "DOM", "Page"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        page.call("Page.navigate", url=address)
        await_(page, "document.readyState === 'complete' && location.protocol === 'http:'")
        page.evaluate("document.getElementById('question').value = 'is there pneumonia?'")
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        film = sorted(films.values())[0]
        page.call("DOM.setFileInputFiles", files=[str(film)], nodeId=node)
        await_(page, "!document.getElementById('found').hidden")
        seen = page.evaluate(
            "({wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,"
            " broken: [...document.images].filter(one => !one.hidden && one.src"
            " && !one.naturalWidth).length,"
            " films: document.querySelectorAll('#similar img').length,"
            " findings: document.querySelectorAll('#findings tr').length,"
            " attention: document.getElementById('attention').naturalWidth,"
            " answer: !document.getElementById('has-answer').hidden})"
        )
        assert 1 <= seen.pop("findings") <= 5
        assert seen == {"wide": 0, "broken": 0, "films": 4, "attention": 384, "answer": True}
        assert all(one.startswith((address, "data:")) for one in page.requests)


def await_(page: Keyboard, condition: str) -> None:
    end = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < end, page.evaluate("document.body.innerText")
        time.sleep(0.05)


def test_no_film_of_a_patient_is_shown_unless_it_may_be(
    finished: Scratch, films: dict[str, Path]
) -> None:
    project = Project(finished.root)
    recorder = Recorder(project.record("try"), stage="try", quiet=True)
    looker = Looker(load_params(project.params), open_job(project, recorder, machine=MACHINE))
    recorder.close()
    assert looker.absent == {}
    data = sorted(films.values())[0].read_bytes()

    def shown(**changes: object) -> list[bool]:
        looker._patients = replace(patients, **changes)
        return ["film" in one for one in looker.look(data)["similar"]]

    patients = looker._patients
    assert patients is not None
    nearest = looker.look(data)["similar"][0]
    assert nearest["cosine"] == 1.0  # itself
    assert shown() == [True] * 4
    assert shown(synthetic=frozenset()) == [False] * 4
    assert shown(synthetic=frozenset(), wanted=True) == [True] * 4
    flagged = [key for key in films if key.startswith(nearest["key"])]
    assert shown(flagged=flagged, wanted=True)[0] is False
