"""20,000 reports to a Parquet file of GPT-2 ids, beside the Hugging Face fast tokenizer.

    python benchmarks/bench_tokens.py

Each turn starts from a list of texts and ends with the file written; the check that every row
spells its text is counted, of ours alone. Peers write the same ids with the same writer, every id
is compared. One thread each.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import GPT2TokenizerFast

from lapvqa.text.bpe import EOT, RANKS, encode, encoding, read_ranks

REPORTS, ALTERNATIONS, BATCH, MAX_LENGTH = 20_000, 7, 4096, 2048
RESULT = Path(__file__).parent / "results" / "tokens-cpu.json"

_COMMON = (
    "the of is no and are there in with to pleural effusion right left lung lungs "
    "clear heart size normal pneumothorax chest acute process unchanged seen mild "
    "small lower lobe upper opacity focal consolidation pulmonary edema cardiac "
    "silhouette mediastinal contours within limits tube tip line in place terminates "
    "svc stable interval compared prior study atelectasis bibasilar bilateral "
    "evidence ap pa lateral views portable cardiomegaly moderate increased decreased "
    "vascular congestion "
)
_SYLLABLES = (
    "a ac al an ar ba be bi bro car ce cho co cu da de di do e en er fi fo ga ge gra "
    "hi ho i ic in ite ja ka la le li lo ma me mi mo na ne ni no o or os pa pe phy "
    "ple pneu po ra re ri ro sa se si so ste sub ta te thy ti to tra tri u ul um va "
    "ve vi vo xi y za "
)


def make_reports(seed: int = 0) -> list[str]:
    """Return reports of about 220 tokens over a vocabulary of 45,000 words, by Zipf's law."""
    rng = np.random.default_rng(seed)
    words = dict.fromkeys(_COMMON.split())
    syllables = _SYLLABLES.split()
    while len(words) < 45_000:
        words["".join(rng.choice(syllables, rng.integers(2, 5)))] = None
    spelt = list(words)
    weights = 1 / np.arange(2, len(spelt) + 2)
    weights /= weights.sum()
    return [_report(rng, spelt, weights) for _ in range(REPORTS)]


def _report(rng: np.random.Generator, words: list[str], weights: np.ndarray) -> str:
    """Return sentences; 3 % numbers, 2 % de-identified spans, one report in 200 not ASCII."""
    chosen = rng.choice(len(words), max(8, int(rng.normal(100, 35))), p=weights)
    kinds = rng.random(len(chosen))
    parts, start = [], True
    for index, kind in zip(chosen, kinds, strict=True):
        word = words[index]
        if kind < 0.03:
            word = f"{rng.integers(1, 200)}{rng.choice(['', ' cm', '.5 mm', ':30', '%'])}"
        elif kind < 0.05:
            word = "___"
        parts.append(word.capitalize() if start else word)
        start = kind > 0.9
        if start:
            parts[-1] += "."
        elif kind > 0.87:
            parts[-1] += ","
    if rng.random() < 0.005:
        parts.append("— 5° à droite.")
    return " ".join(parts)


def fast_tokenizer() -> GPT2TokenizerFast:
    """Return the peer, its vocabulary and merges derived from our rank table; no network."""
    ranks = read_ranks(RANKS)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable}
    shown |= {byte: chr(256 + place) for place, byte in enumerate(others)}

    def spell(token: bytes) -> str:
        return "".join(shown[byte] for byte in token)

    vocabulary = {spell(token): rank for token, rank in ranks.items()} | {"<|endoftext|>": EOT}
    merges = [
        tuple(map(spell, _parts(token, ranks)))
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if rank >= 256
    ]
    # Given file names, this class has a vocabulary of one token and is very fast.
    tokenizer = GPT2TokenizerFast(vocab=vocabulary, merges=merges)
    assert len(tokenizer) == 50257
    return tokenizer


def _parts(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two parts that the merge of ``token``'s own rank joins."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        _, place = min(
            (ranks.get(a + b, EOT), place)
            for place, (a, b) in enumerate(zip(parts, parts[1:], strict=False))
            if a + b != token
        )
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


def ours(texts: list[str], path: Path) -> None:
    """lapvqa.text.bpe.encode, in the stage's batches."""
    chunks = []
    for start in range(0, len(texts), BATCH):
        found = encode(texts[start : start + BATCH], max_length=MAX_LENGTH)
        chunks.append(pa.ListArray.from_arrays(found.ends.astype(np.int32), found.ids))
    _write(pa.chunked_array(chunks), path)


def hugging_face(texts: list[str], path: Path) -> None:
    """GPT2TokenizerFast in batches, as datasets.map(batched=True) calls it."""
    chunks = []
    for start in range(0, len(texts), BATCH):
        rows = PEER(texts[start : start + BATCH], return_attention_mask=False)["input_ids"]
        chunks.append(pa.array([[EOT, *row, EOT] for row in rows], pa.list_(pa.uint16())))
    _write(pa.chunked_array(chunks), path)


def tokenizers_batch_fast(texts: list[str], path: Path) -> None:
    """The same tokenizer's Rust core, called directly and without offsets: its fastest call."""
    core, chunks = PEER.backend_tokenizer, []
    for start in range(0, len(texts), BATCH):
        rows = core.encode_batch_fast(texts[start : start + BATCH])
        lists = [[EOT, *row.ids, EOT] for row in rows]
        chunks.append(pa.array(lists, pa.list_(pa.uint16())))
    _write(pa.chunked_array(chunks), path)


def tiktoken_loop(texts: list[str], path: Path) -> None:
    """encode_ordinary, one text after the other."""
    encode = encoding().encode_ordinary
    lists = [[EOT, *encode(text), EOT] for text in texts]
    _write(pa.chunked_array([pa.array(lists, pa.list_(pa.uint16()))]), path)


def _write(ids: pa.ChunkedArray, path: Path) -> None:
    pq.write_table(pa.table({"token_ids": ids}), path, compression="zstd")


def seconds(function: Callable[[list[str], Path], None], texts: list[str], path: Path) -> float:
    """Return the wall time of one turn."""
    started = time.perf_counter()
    function(texts, path)
    return time.perf_counter() - started


def main() -> None:
    """Compare the ids, alternate, print, keep."""
    texts = make_reports()
    distinct = len({word for text in texts for word in re.findall("[a-z]+", text.lower())})
    assert distinct >= 30_000, distinct
    encode(["No effusion."], max_length=MAX_LENGTH)  # reads the table of ranks
    contenders = (ours, hugging_face, tokenizers_batch_fast, tiktoken_loop)
    times: dict[str, list[float]] = {function.__name__: [] for function in contenders}
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ALTERNATIONS):
            for function in contenders:
                path = Path(folder) / f"{function.__name__}.parquet"
                times[function.__name__].append(seconds(function, texts, path))
            if turn == 0:
                tables = [pq.read_table(path) for path in sorted(Path(folder).iterdir())]
                assert all(table.equals(tables[0]) for table in tables), "ids differ"
                num_tokens = len(tables[0]["token_ids"].combine_chunks().values) - 2 * len(texts)
    result = {
        "reports": len(texts),
        "characters_per_report": round(sum(map(len, texts)) / len(texts)),
        "tokens_per_report": round(num_tokens / len(texts)),
        "distinct_words": distinct,
        "reports_not_ascii": sum(not text.isascii() for text in texts),
        "identical_ids": True,
        "alternations": ALTERNATIONS,
        "load_average": [load_before, os.getloadavg()[0]],
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {
            name: version(name)
            for name in ("numpy", "pyarrow", "tiktoken", "tokenizers", "transformers")
        },
        "median_s": {name: round(statistics.median(all_), 3) for name, all_ in times.items()},
        "tokens_per_s": {
            name: round(num_tokens / statistics.median(all_)) for name, all_ in times.items()
        },
        "times_as_fast_median_min_max": {
            name: _ratios(times["ours"], all_) for name, all_ in times.items() if name != "ours"
        },
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _ratios(own: list[float], peer: list[float]) -> list[float]:
    ratios = [b / a for a, b in zip(own, peer, strict=True)]
    return [round(one, 2) for one in (statistics.median(ratios), min(ratios), max(ratios))]


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


if __name__ == "__main__":
    PEER = fast_tokenizer()
    main()
