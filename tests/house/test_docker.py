"""The container files: linted, and without what a hospital would refuse. No engine is needed."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

BIN = Path(sys.executable).parent
SECRET = re.compile(r"PASSWORD$|SECRET|ACCESS_KEY|AUTH_STRING|_URL$|_URI$|USERS$")


@pytest.fixture(scope="module")
def services(repository: Path) -> dict[str, Any]:
    content = YAML(typ="safe").load(repository / "docker/compose.yaml")
    return dict(content["services"])


def test_the_image_and_the_services_pass_their_linters(repository: Path) -> None:
    for command in (
        ["hadolint", "docker/Dockerfile"],
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml"],
    ):
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]], cwd=repository, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_nobody_is_root_and_nothing_listens_beyond_this_machine(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name != "orthanc":  # its image starts as root and keeps its files so
            assert service["user"] not in {"root", "0", "0:0"}, name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_no_secret_has_a_default(services: dict[str, Any]) -> None:
    seen = 0
    for name, service in services.items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key) and re.search(r"://[^/]*@|PASSWORD|KEY|AUTH|USERS", key + value):
                assert re.search(r"\$\{\w+:\?", value), f"{name}: {key}"
                seen += 1
    assert seen >= 10


def test_whatever_stays_says_whether_it_is_well(services: dict[str, Any]) -> None:
    assert {name for name, one in services.items() if "healthcheck" not in one} == {"buckets"}


def test_secrets_are_random_stay_and_are_their_owners_alone(
    repository: Path, tmp_path: Path
) -> None:
    script = tmp_path / "make_secrets.py"
    script.write_bytes((repository / "docker/make_secrets.py").read_bytes())
    path = tmp_path / ".env"
    path.write_text("S3_PORT=9000\nPREFECT_PASSWORD=chosen\n")
    path.chmod(0o644)
    printed = subprocess.run([sys.executable, str(script)], capture_output=True, check=True).stdout
    first = dict(line.split("=") for line in path.read_text().split())
    subprocess.run([sys.executable, str(script)], check=True)
    assert dict(line.split("=") for line in path.read_text().split()) == first
    assert first["S3_PORT"] == "9000"
    assert first["PREFECT_PASSWORD"] == "chosen"
    assert len(set(first.values())) == len(first)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not printed
    wanted = set(re.findall(r"\$\{(\w+):\?", (repository / "docker/compose.yaml").read_text()))
    assert wanted <= first.keys()
