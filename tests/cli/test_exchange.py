"""card, bundle and export-lineage as a user calls them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import written_ledger
from cli_answer import Lapvqa

from flows.commands import terminal

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = written_ledger.write(tmp_path / "project").root
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, root)
    monkeypatch.chdir(root)
    return root


def test_a_card_is_made_and_checked(project: Path, lapvqa: Lapvqa) -> None:
    printed = lapvqa("card", "models/captioning")
    assert printed.code == 0, printed.err
    assert lapvqa("card", "captioning", "--out", "card.md").code == 0
    assert Path("card.md").read_text() == printed.out
    assert lapvqa("card", "captioning", "--html", "--out", "card.html").code == 0
    for page in ("card.md", "card.html"):
        held = lapvqa("card", "--check", page)
        assert held.code == 0
        assert "values, each as the ledger has it" in held.out
    Path("card.md").write_text(printed.out.replace("0.722<", "0.922<", 1))
    refused = lapvqa("card", "--check", "card.md")
    assert refused.code == 3
    assert "the card says '0.922', the ledger '0.722'" in refused.out
    Path("card.md").write_bytes(b"library_name: lapvqa\xff")
    empty = lapvqa("card", "--check", "card.md")
    assert empty.code == 3
    assert "names no model of this ledger" in empty.out
    Path("notes.md").write_text("no card")
    stranger = lapvqa("card", "--check", "notes.md")
    assert (stranger.code, "found another file" in stranger.err) == (2, True)
    same = lapvqa("compare", "captioning", "models/captioning", "--quick")
    assert same.out.splitlines()[1:] == ["the same: nothing differs"], same.out
    assert "found none" in lapvqa("card", "--check", "none.md").err
    assert lapvqa("card").code == 2
    assert lapvqa("card", "unheard-of").code == 2


def test_a_bundle_goes_out_and_comes_in(
    project: Path, tmp_path: Path, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.zip"
    packed = lapvqa("bundle", "captioning", "--out", str(file), "--weights")
    assert packed.code == 0, packed.err
    assert "signed by key" in packed.out
    assert "patients' keys" not in packed.out
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(REPOSITORY / "dvc.yaml", other)
    monkeypatch.chdir(other)
    key = str(project / "ledger" / "signing.pub")
    assert "ask the sender" in lapvqa("bundle", "--import", str(file)).out
    again = lapvqa("bundle", "--import", str(file), "--key", key)
    assert again.code == 0
    assert "known already" in again.out
    assert "signed by the key of signing.pub" in again.out
    (card,) = other.glob("imports/*/card.md")
    whole = card.read_bytes()
    for damage in (card.unlink, lambda: card.write_bytes(whole[:-2]),
                   lambda: card.with_name("public_key.pem").write_bytes(b"another"),
                   lambda: card.with_name("added.txt").write_text("by somebody")):  # fmt: skip
        damage()
        assert "damaged since" in lapvqa("bundle", "--import", str(file)).out
        assert card.read_bytes() == whole
        assert "nothing changed" in lapvqa("bundle", "--import", str(file)).out
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    refused = lapvqa("bundle", "--import", str(file))
    assert refused.code == 3
    assert "nothing was taken in" in refused.err
    assert lapvqa("bundle", "captioning").code == 2
    for missing in (("--import", "none.zip"), ("--import", str(file), "--key", "none.pub")):
        answer = lapvqa("bundle", *missing)
        assert answer.code == 2
        assert "found none" in answer.err


@pytest.mark.parametrize("form", ["openlineage", "prov", "ro-crate"])
def test_the_ledger_is_exported(project: Path, lapvqa: Lapvqa, form: str) -> None:
    answer = lapvqa("export-lineage", "captioning", "--format", form, "--out", "out")
    assert answer.code == 0, answer.err
    assert "wrote out: 5 runs, " in answer.out
    assert Path("out").exists()
    assert lapvqa("export-lineage", "--format", form).code == 2
    assert lapvqa("export-lineage", "--format", "xml", "--out", "x").code == 2


def test_nothing_is_written_over_that_the_command_did_not_write(
    project: Path, lapvqa: Lapvqa
) -> None:
    mine = Path("mine")
    mine.write_text("# a thesis\n")
    for command in (
        ("card", "captioning", "--out"), ("bundle", "captioning", "--out"),
        ("export-lineage", "captioning", "--format", "prov", "--out"),
        ("export-lineage", "captioning", "--format", "openlineage", "--out"),
        ("lineage", "export", "--html"),
    ):  # fmt: skip
        refused = lapvqa(*command, "mine")
        assert refused.code == 2
        assert "found another file at mine" in refused.err
        assert "expected a file to write, found the folder" in lapvqa(*command, "ledger").err
        own = command[0] + command[-2][-4:]
        assert [lapvqa(*command, own).code for _ in range(2)] == [0, 0]
    assert mine.read_text() == "# a thesis\n"


def test_a_card_on_a_terminal_is_for_people_and_the_file_for_machines(
    project: Path, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lapvqa("card", "captioning").out
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    shown = lapvqa("card", "captioning").out
    assert "<!--" not in shown
    assert "---" not in shown
    assert "model-index" not in shown
    for heading in re.findall(r"(?m)^#+ (\w[^<\n]*)$", file):
        assert heading in shown
    assert all(len(line) <= 80 or " " not in line.strip() for line in shown.splitlines())
    assert "0.722" in shown
    assert lapvqa("card", "captioning", "--markdown").out == file
    assert lapvqa("card", "captioning", "--html").out.startswith("<!doctype html>")
