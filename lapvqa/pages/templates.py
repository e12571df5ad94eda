"""A room's templates: they extend base.html and take their tables from tables.html."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_SHARED = Path(__file__).parent


def templates(room: Path) -> Environment:
    """Return the templates of a folder; a name that a page is not given is an error."""
    found = Environment(
        loader=FileSystemLoader([room, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["thousands"] = lambda value: f"{value:,}"
    return found
