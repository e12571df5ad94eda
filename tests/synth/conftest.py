"""One small demo archive for the whole folder; tests only read it."""

from pathlib import Path

import pytest

from lapvqa.synth.archive import write_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_demo(root, patients=20, studies=48, seed=3)
    return root
