"""What mkdocs is told besides mkdocs.yml: pages that nav does not name, GitHub's Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_LIST = re.compile(r"^([-*]|\d+\.) ")


def on_config(config: Any) -> Any:
    """Put all decisions below Decisions, and what nobody named at the end of the how-to's."""
    docs = Path(config.docs_dir)
    sections = {name: entries for item in config.nav for name, entries in item.items()}
    decisions = sorted(docs.glob("decisions/0*.md"))
    sections["Explanation"][-1] = {
        "Decisions": ["decisions/README.md", *(_entry(path, docs) for path in decisions)]
    }
    named = set(re.findall(r"[\w/-]+\.md", str(config.nav)))
    others = [path for path in sorted(docs.glob("*.md")) if path.name not in named]
    sections["How-to"] += [_entry(path, docs) for path in others]
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Say where a file outside of docs/ lies; a list needs an empty line before it here."""
    docs = Path(config.docs_dir)
    here = (docs / page.file.src_uri).parent

    def outside(link: re.Match[str]) -> str:
        target = (here / link[2]).resolve()
        if target.is_relative_to(docs.resolve()):
            return link[0]
        if not target.exists():
            raise PluginError(f"{page.file.src_uri}: {link[2]} does not exist")
        return f"{link[1]} (`{target.relative_to(docs.resolve().parent)}`)"

    return _spaced(_OUTSIDE.sub(outside, markdown))


def _entry(path: Path, docs: Path) -> dict[str, str]:
    title = _TITLE.search(path.read_text(encoding="utf-8"))
    words = title[1].replace("`", "") if title else path.stem
    return {words: path.relative_to(docs).as_posix()}


def _spaced(markdown: str) -> str:
    lines, fenced = [], False
    for line in markdown.splitlines():
        fenced ^= line.startswith("```")
        starts = _LIST.match(line) and not fenced
        if starts and lines and lines[-1].strip() and not _goes_on(lines[-1]):
            lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _goes_on(line: str) -> bool:
    return bool(_LIST.match(line)) or line.startswith((" ", "\t"))
