"""The fast encoder gives tiktoken's ids, text by text, whatever the text."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lapvqa.text import bpe_kernels
from lapvqa.text.bpe import EOT, encoding
from lapvqa.text.fast_bpe import Encoded, FastBpe, check

BPE = FastBpe()  # shared, so that its table grows over the examples
PIECES = [
    " ", "  ", "\n", "\r\n", "\t", "\v", "\f", "\x00", "\x1c", "\x1f", "\x7f", "\x85", "\xa0", "'",
    "'s", "'S", "'ll", "'l", "'ve", "'re", "'r", "'d", "'m", "'t", " 's", "''s", "a", "Lungs", "7",
    "378", "½", "_", "___", ".", "-", "(", " é", "café", "肺", "🫁", "<|endoftext|>", "cm", "XXXX",
]  # fmt: skip
TEXTS = st.lists(
    st.one_of(
        st.lists(st.sampled_from(PIECES), max_size=20).map("".join),
        st.text(alphabet=st.characters(max_codepoint=127), max_size=60),
        st.text(max_size=60),
    ),
    max_size=8,
)


def _rows(encoded: Encoded) -> list[list[int]]:
    ends = encoded.ends
    return [encoded.ids[a:b].tolist() for a, b in zip(ends, ends[1:], strict=False)]


def _reference(texts: list[str], max_length: int) -> list[list[int]]:
    whole = [encoding().encode_ordinary(text) for text in texts]
    return [[EOT, *ids[: max_length - 2], EOT] for ids in whole]


@settings(max_examples=1500, deadline=None)
@given(TEXTS, st.sampled_from([4, 9, 2048]))
@example(["'", " '", "'l", "a ", " ", "\n", " \n", "\n a", "  a", "a'"], 2048)
def test_ids_are_those_of_tiktoken(texts: list[str], max_length: int) -> None:
    encoded = BPE.encode(pa.array(texts, pa.string()), max_length=max_length)
    assert _rows(encoded) == _reference(texts, max_length)
    full = [len(encoding().encode_ordinary(text)) for text in texts]
    assert encoded.num_tokens.tolist() == full
    assert encoded.cut.tolist() == [length > max_length - 2 for length in full]


def test_the_kernels_know_the_end_of_text() -> None:
    assert bpe_kernels.EOT == EOT


def test_every_string_of_three_ascii_characters_that_matter() -> None:
    letters = " \n\t'sdmltvreA7._\x00\x1f"
    texts = [f"{a}{b}{c}{d}" for a in letters for b in letters for c in letters for d in " x"]
    encoded = BPE.encode(pa.array(texts), max_length=64)
    assert _rows(encoded) == _reference(texts, 64)


def test_ids_do_not_depend_on_what_was_met_before() -> None:
    texts = [f"Word{number} left {number}." for number in range(3000)]
    at_once = _rows(FastBpe().encode(pa.array(texts), max_length=64))
    bpe = FastBpe()
    one_by_one = [_rows(bpe.encode(pa.array([text]), max_length=64))[0] for text in texts[::-1]]
    assert one_by_one[::-1] == at_once


def test_the_table_grows() -> None:
    """More words, and longer ones, than the first table has room for."""
    numbers = np.random.default_rng(0).integers(0, 26, (90_000, 8)) + ord("a")
    words = numbers.astype(np.uint8).tobytes().decode()
    texts = [" ".join(re.findall("." * 8, words[start : start + 8000]))
             for start in range(0, len(words), 8000)]  # fmt: skip
    texts += ["x" * 3_000_000, ""]
    encoded = FastBpe().encode(pa.array(texts), max_length=2048)
    assert _rows(encoded) == _reference(texts, 2048)


def test_slices_and_large_strings() -> None:
    texts = ["a left", "é right", "", "no effusion"]
    for kind in (pa.string(), pa.large_string()):
        array = pa.array(["skipped", *texts, "skipped"], kind).slice(1, 4)
        assert _rows(BPE.encode(array, max_length=16)) == _reference(texts, 16)
    assert len(BPE.encode(pa.array([], pa.string()), max_length=16).ids) == 0


@pytest.mark.parametrize("place", [0, 1, 3, -1])
def test_the_check_sees_one_wrong_id(place: int) -> None:
    texts = pa.array(["No effusion is seen.", "Café: clear."])
    good = BPE.encode(texts, max_length=64)
    for row in range(2):
        start, end = good.ends[row : row + 2]
        ids = good.ids.copy()
        ids[end - 1 if place < 0 else start + place] ^= 1
        wrong = Encoded(ids, good.ends, good.num_tokens, good.cut)
        with pytest.raises(AssertionError, match=f"text {row} of 2 do not spell it"):
            check(wrong, texts)


def test_the_check_sees_a_text_cut_unsaid_and_a_whole_one_said_to_be_cut() -> None:
    texts = pa.array(["No effusion is seen."])
    for max_length in (4, 64):
        good = BPE.encode(texts, max_length=max_length)
        with pytest.raises(AssertionError, match="do not spell it"):
            check(Encoded(good.ids, good.ends, good.num_tokens, ~good.cut), texts)


@pytest.mark.corpus
def test_all_reports_of_the_corpus(corpus: Path, openi: dict[str, str]) -> None:
    files = sorted((corpus / "mimic-cxr" / "files").rglob("*.txt"))
    texts = [file.read_bytes().decode() for file in files] + list(openi.values())
    assert len(texts) == 181 + 3955
    assert _rows(BPE.encode(pa.array(texts), max_length=2048)) == _reference(texts, 2048)


def test_works_without_environment_and_home(tmp_path: Path) -> None:
    program = (
        "import pyarrow as pa; from lapvqa.text.fast_bpe import FastBpe; "
        "assert FastBpe().encode(pa.array(['a']), max_length=4).ids.tolist() == [50256, 64, 50256]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={}, cwd=tmp_path)
