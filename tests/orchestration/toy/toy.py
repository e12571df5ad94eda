"""The stages of the toy project: what a stage does to its surroundings, without the science.

``input/`` is the archive; a file ``trouble`` in it says what goes wrong: ``STAGE fail CODE``,
``STAGE hang`` (with a worker of its own that never ends), ``STAGE wait`` (until ``.lapvqa/go``).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from lapvqa import storage
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder

LAYOUT = Project(Path.cwd())


def main(stage: str) -> int:
    recorder = Recorder(LAYOUT.record(stage), stage=stage)
    trouble(stage, recorder)
    recorder.facts({"device": "cpu"})
    for step in range(20):
        recorder.metrics({"loss": 1.0 / (step + 1), "images_per_s": 10.0}, step=step)
    recorder.progress(1, 1, unit="files")
    recorder.say("something for the person")
    sys.stdout.write("one line\rand another\n")
    WRITE[stage.partition("@")[0]](stage)
    recorder.summary({"files": len(list(Path("input").iterdir())), "mode": "toy"})
    recorder.close()
    facts = {
        "stage": stage, "started": time.time(), "seconds": 0.5, "counts": {},
        "ids": {k: v for k, v in os.environ.items() if k.startswith("LAPVQA_ID_")},
    }  # fmt: skip
    storage.write_json(LAYOUT.run_file(stage), facts)
    return 0


def trouble(stage: str, recorder: Recorder) -> None:
    path = Path("input/trouble")
    words = path.read_text().split() if path.exists() else []
    if words[:2] == [stage, "fail"]:
        sys.stderr.write("BudgetError: more rejects than allowed\n")
        raise SystemExit(int(words[2]))
    if words[:2] == [stage, "wait"]:
        Path(".lapvqa/waiting").touch()
        for number in range(2000):
            recorder.progress(number, 2000, unit="files")
            if Path(".lapvqa/go").exists():
                break
            time.sleep(0.1)
    if words[:2] == [stage, "hang"]:
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        try:
            Path(".lapvqa/pids").write_text(f"{os.getpid()} {worker.pid}")
            time.sleep(600)
        except KeyboardInterrupt:
            Path(".lapvqa/put-away").touch()
            raise SystemExit(130) from None


def digest(*paths: str) -> str:
    state = hashlib.sha256()
    for path in paths:
        found = Path(path)
        files = sorted(f for f in found.rglob("*") if f.is_file()) if found.is_dir() else [found]
        for file in files:
            state.update(file.read_bytes())
    return state.hexdigest()


def inventory(_stage: str) -> None:
    names = sorted(path.name for path in Path("input").iterdir() if path.name != "trouble")
    storage.write_json(Path("data/inventory/source.json"), names)


def ingest(_stage: str) -> None:
    storage.write_json(Path("data/images/images-00000.arrow"), digest("data/inventory"))
    storage.write_json(Path("data/studies.parquet"), digest("data/inventory"))


def tokens(_stage: str) -> None:
    length = load_params(LAYOUT.params).tokens.max_length
    storage.write_json(Path("data/tokens/tokens-00000.parquet"), [length])


def pretrain(_stage: str) -> None:
    seed = load_params(LAYOUT.params).pretrain.seed
    storage.write_json(Path("models/captioning/model_best.pt"), [seed, digest("data/images")])


def export(_stage: str) -> None:
    """A real encoder of the smallest size, so that it can be registered and loaded."""
    import safetensors.torch

    from lapvqa.params import ModelParams
    from lapvqa.pretrain.model import initial_model

    sizes = {
        "image_size": 32, "patch_size": 16, "width": 8, "depth": 1, "heads": 1, "pooled_grid": 2,
        "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 1,
    }  # fmt: skip
    seed = load_params(LAYOUT.params).pretrain.seed
    encoder = initial_model(ModelParams(**sizes), seed=seed).vision_encoder
    folder = LAYOUT.model_dir("captioning")
    content = safetensors.torch.save(encoder.state_dict())
    storage.write_bytes(folder / "encoder.safetensors", content)
    storage.write_json(folder / "card.json", {"model": sizes})


def evaluate(stage: str) -> None:
    task = stage.partition("@")[2]
    folder = LAYOUT.result_dir(task)
    storage.write_json(
        folder / "predictions.parquet", digest("models/captioning/encoder.safetensors")
    )
    metrics = {"mean_auc": {"value": 0.9, "low": 0.85, "high": None}}
    undefined = {"mean_auc": {"value": None, "low": None, "high": None}}
    document = {
        "task": task, "status": "ok", "primary": "mean_auc",
        "systems": {"trained": metrics, "untrained": undefined},
        "differences": {"trained-untrained": metrics},
    }  # fmt: skip
    storage.write_json(folder / "metrics.json", document)


def report(_stage: str) -> None:
    text = json.dumps(digest("results/rrg/metrics.json"))
    storage.write_bytes(LAYOUT.report_page, f"<p>{text}</p>".encode())
    picture = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    storage.write_bytes(LAYOUT.pictures_dir / "rrg.svg", picture.encode())


WRITE = {
    "inventory": inventory, "ingest": ingest, "tokens": tokens, "pretrain": pretrain,
    "export": export, "evaluate": evaluate, "report": report,
}  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
