"""The picture of the flow, docs/img/flow.svg, from dvc.yaml; ``make docs`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
_CHAIN = {
    "inventory": "what is there",
    "ingest": "files to images",
    "tokens": "text to ids",
    "firewall": "no test film",
    "pretrain": "write the report",
    "export": "the encoder",
}
"""Stages in a row, and what each does."""
_EVALUATIONS = {
    "probe_chexpert": "5 labels",
    "probe_nih14": "14 labels",
    "probe_archive": "own labels",
    "retrieval": "film and report",
    "vqa": "one image",
    "diffvqa": "two images",
    "rrg": "reports",
    "ad": "boxes",
    "pg": "phrases",
}
_FILES = {
    "ingest": ("images", "studies.parquet", "rejects.parquet"),
    "firewall": ("excluded.parquet",),
    "pretrain": ("model_best.pt", "training.json"),
    "export": ("encoder_final.pt", "card.json"),
}
"""Outputs that are named, of stages that have more than one."""
_BESIDE = {
    "Prefect": "runs each stale stage as one task, by hand or by the clock",
    "DVC": "knows what is stale; hashes every input and output: dvc.yaml, dvc.lock",
    "MLflow": "keeps parameters, metrics and the registered encoder",
}
_STEP, _BOX, _ROW = 114, 98, 26
_STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; \
text-anchor: middle; fill: #16202a; }
.t { font-weight: 600; }
.s { font-size: 12px; fill: #52606d; }
.f { font: 11px ui-monospace, Menlo, "DejaVu Sans Mono", monospace; fill: #52606d; }
.start { text-anchor: start; } .end { text-anchor: end; }
.stage { fill: #e8f1fa; stroke: #0b62a8; stroke-width: 1.5; }
.outside { fill: #fff4d6; stroke: #9a6b00; stroke-width: 1.5; }
.layer { fill: #f5f7f9; stroke: #d3dae1; }
.a { fill: none; stroke: #52606d; stroke-width: 1.5; }
.page { fill: #ffffff; }
.tip { fill: #52606d; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6ebf0; }
  .s, .f, .tip { fill: #a3b0bd; }
  .stage { fill: #14314a; stroke: #5ab4f2; }
  .outside { fill: #33290f; stroke: #d9a93a; }
  .layer { fill: #1a2129; stroke: #36424e; }
  .a { stroke: #a3b0bd; }
  .page { fill: #11161c; }
}"""


def flow() -> str:
    """Return the picture; KeyError for a stage of dvc.yaml that has no words here."""
    graph = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
    chain = [name for name in graph if name not in ("evaluate", "report")]
    judged = list(graph["evaluate"]["foreach"])
    bottom = 26 + _ROW * len(judged)
    height = bottom + 224
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1060 {height}" width="1060" '
        f'height="{height}" role="img" aria-labelledby="title description">',
        '<title id="title">The flow of LAPVQA</title>',
        '<desc id="description">An archive of DICOM files and reports goes through the stages '
        f"{', '.join(chain[:-1])} and {chain[-1]} to an encoder; {len(judged)} evaluations write "
        "predictions and metrics; a report page shows them. Prefect runs the stages, DVC knows "
        "what is stale, MLflow keeps records.</desc>",
        f"<style>\n{_STYLE}\n</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path class="tip" d="M0 0L8 4L0 8Z"/></marker></defs>',
        f'<rect class="page" width="1060" height="{height}" rx="8"/>',
        *_row(chain, graph),
        *_fan(judged, 20 + _STEP * len(chain) + _BOX),
        *_report(graph, bottom),
        *_layers(bottom + 72),
    ]
    return "\n".join([*lines, "</svg>\n"])


def _row(chain: list[str], graph: dict[str, Any]) -> Iterator[str]:
    yield from _box("outside", 20, "archive", "DICOM, reports")
    for place, name in enumerate(chain, start=1):
        x = 20 + _STEP * place
        yield _arrow(f"M{x - _STEP + _BOX} 99H{x - 6}")
        yield from _box("stage", x, name, _CHAIN[name])
        for line, file in enumerate(_named(name, graph[name]["outs"])):
            yield _text("f", x + _BOX // 2, 150 + 17 * line, file)


def _named(stage: str, outs: list[Any]) -> Iterator[str]:
    """Yield the outputs to show, short; ValueError for one that dvc.yaml has no more."""
    paths = [PurePosixPath(next(iter(out)) if isinstance(out, dict) else out) for out in outs]
    by_name = {path.name: path for path in paths}
    for name in _FILES.get(stage, (paths[0].name,)):
        if name not in by_name:
            raise ValueError(f"{stage}: expected the output {name} in dvc.yaml")
        yield name if PurePosixPath(name).suffix else f"{by_name[name]}/"


def _fan(judged: list[str], start: int) -> Iterator[str]:
    yield _text("s", 940, 19, "evaluate@")
    for place, name in enumerate(judged):
        y = 26 + _ROW * place
        yield f'<rect class="stage" x="840" y="{y}" width="200" height="22" rx="6"/>'
        yield _text("t start", 852, y + 16, name)
        yield _text("s end", 1028, y + 16, _EVALUATIONS[name])
        yield _arrow(f"M{start} 99C{start + 16} 99 814 {y + 11} 834 {y + 11}")


def _report(graph: dict[str, Any], bottom: int) -> Iterator[str]:
    yield f'<rect class="stage" x="840" y="{bottom + 16}" width="200" height="42" rx="8"/>'
    yield _text("t", 940, bottom + 34, "report")
    yield _text("s", 940, bottom + 50, str(graph["report"]["outs"][0]))
    yield _arrow(f"M940 {bottom - 4}V{bottom + 10}")
    yield _text("f end", 826, bottom + 41, "predictions.parquet, metrics.json")


def _layers(top: int) -> Iterator[str]:
    for place, (name, words) in enumerate(_BESIDE.items()):
        y = top + 42 * place
        yield f'<rect class="layer" x="20" y="{y}" width="1020" height="34" rx="8"/>'
        yield _text("t start", 36, y + 22, name)
        yield _text("s start", 120, y + 22, words)
    yield _text(
        "s start", 36, top + 142,
        "One ledger ties the three together: lapvqa lineage FILE walks from a number back to the "
        "archive's files.",
    )  # fmt: skip


def _box(kind: str, x: int, name: str, words: str) -> Iterator[str]:
    yield f'<rect class="{kind}" x="{x}" y="70" width="{_BOX}" height="58" rx="8"/>'
    yield _text("t", x + _BOX // 2, 95, name)
    yield _text("s", x + _BOX // 2, 113, words)


def _text(kind: str, x: int, y: int, words: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{words}</text>'


def _arrow(path: str) -> str:
    return f'<path class="a" d="{path}" marker-end="url(#tip)"/>'
