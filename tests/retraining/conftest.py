"""A project folder with a rule of retraining."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lapvqa.project import Project


@pytest.fixture(scope="session")
def parameters(repository: Path) -> dict[str, Any]:
    """params.yaml of the repository, without its section retraining."""
    whole = YAML(typ="safe").load((repository / "params.yaml").read_text())
    return {name: section for name, section in whole.items() if name != "retraining"}


@pytest.fixture
def ruled(tmp_path: Path, parameters: dict[str, Any]) -> Callable[..., Project]:
    """Return a maker of a project with a rule; nothing is waited for but what the rule says."""

    def make(**rule: Any) -> Project:
        whole = {**parameters, "retraining": {"quiet_minutes": 0, "rest_hours": 0, **rule}}
        with (tmp_path / "params.yaml").open("w") as file:
            YAML().dump(whole, file)
        return Project(tmp_path)

    return make
