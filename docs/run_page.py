"""Run the commands of a page in a project, and write what they print into the page.

    python docs/run_page.py first-hour.md PROJECT

Commands stand in blocks indented by four, after "$ "; what follows is their output and is replaced.
A comment of its own line above a block says more of it:
    <!-- exit 3 -->         the code with which its last command ends, unless it is 0
    <!-- lines: PATTERN --> which lines of its output are shown, unless all are
    <!-- by hand -->        not run: it stays until Ctrl-C, or needs the network
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent
_BLOCK = re.compile(
    r"(?P<notes>(?:<!-- .* -->\n)*)\n?(?P<code> {4}\$ .*\n(?: {4}.*\n|\n(?= {4}))*)"
)
_HEREDOC = re.compile(r"<<'(\w+)'")
WIDTH = "130"
"""Columns of the terminal: of what is printed as a table."""
_HOME = "~"
"""Printed in place of the folder that holds the project."""


@dataclass(frozen=True)
class Command:
    """A command, and what the page says that it prints."""

    text: str
    output: str


@dataclass(frozen=True)
class Block:
    """The commands of a block. ``code``: with which the last ends; ``shown``: which lines."""

    commands: list[Command]
    code: int = 0
    shown: str = ""
    by_hand: bool = False


def blocks(page: str) -> Iterator[tuple[re.Match[str], Block]]:
    """Yield each block with commands, and where it stands."""
    for found in _BLOCK.finditer(page):
        lines = [line[4:] for line in found["code"].splitlines()]
        notes = found["notes"]
        code = re.search(r"<!-- exit (\d+) -->", notes)
        shown = re.search(r"<!-- lines: (.*) -->", notes)
        yield found, Block(
            list(_commands(lines)), int(code[1]) if code else 0, shown[1] if shown else "",
            "<!-- by hand -->" in notes,
        )  # fmt: skip


def _commands(lines: list[str]) -> Iterator[Command]:
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        until = start + 1
        if heredoc := _HEREDOC.search(lines[start]):
            until = lines.index(heredoc[1], start) + 1
        text = "\n".join(lines[start:until])[2:]
        yield Command(text, "".join(f"{line}\n" for line in lines[until:end]))


def run(block: Block, folder: Path, environment: dict[str, str]) -> list[Command]:
    """Run the commands of a block; return them with what they print, as far as it is shown."""
    ran = []
    for command in block.commands:
        done = subprocess.run(
            ["bash", "-c", command.text], cwd=folder, env=environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        expected = block.code if command is block.commands[-1] else 0
        if done.returncode != expected:
            raise RuntimeError(f"{command.text}: {done.returncode}\n{done.stdout}")
        told = done.stdout.replace(str(folder.absolute().parent), _HOME)
        lines = [line.rstrip() for line in told.splitlines()]
        shown = [line for line in lines if re.search(block.shown, line)]
        ran.append(Command(command.text, "".join(f"{line}\n" for line in shown)))
    return ran


def environment() -> dict[str, str]:
    """Return that of a person who activated this Python's environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "COLUMNS": WIDTH}


def main(name: str, project: str) -> int:
    """Run the page, and write it anew, as far as it came; say meanwhile how far it is."""
    page = DOCS / name
    text = page.read_text(encoding="utf-8")
    parts, end = [], 0
    try:
        for found, block in blocks(text):
            if block.by_hand:
                continue
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {block.commands[0].text}\n")
            ran = run(block, Path(project), environment())
            told = "".join(f"$ {command.text}\n{command.output}" for command in ran)
            indented = "".join(f"    {line}\n" if line else "\n" for line in told.splitlines())
            parts += [text[end : found.start("code")], indented]
            end = found.end("code")
    finally:
        page.write_text("".join(parts) + text[end:], encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
