"""dvc.yaml is read as DVC reads it, and files are hashed as DVC hashes them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lapvqa.errors import ConfigError
from lapvqa.project import Project
from lapvqa.uptodate import stagefile
from lapvqa.uptodate.hashes import Hasher, TooMuchToHashError

REPOSITORY = Path(__file__).parents[2]


def test_the_projects_own_stage_file_reads_as_dvc_reads_it() -> None:
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    ours = stagefile.declared(Project(REPOSITORY))
    with Repo(str(REPOSITORY)) as repository:
        graph = repository.index.graph
        theirs = {stage.name: stage for stage in repository.index.stages}
        edges = {(a.name, b.name) for a, b in graph.edges}
    assert set(ours) == set(theirs)
    for name, stage in theirs.items():
        files = [dep for dep in stage.deps if not isinstance(dep, ParamsDependency)]
        params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
        assert ours[name].cmd == stage.cmd
        assert set(ours[name].deps) == {dep.def_path for dep in files}
        assert set(ours[name].outs) == {out.def_path for out in stage.outs}
        assert set(ours[name].params) == {key for dep in params for key in dep.params}
        assert ours[name].always_changed == stage.always_changed
    assert edges == {(name, up) for name in ours for up in stagefile.upstream(ours, name)}


def test_upstream_stages_come_first() -> None:
    stages = stagefile.declared(Project(REPOSITORY))
    order = list(stages)
    for name in order:
        assert all(
            order.index(other) < order.index(name) for other in stagefile.upstream(stages, name)
        )


def write(root: Path, text: str) -> Project:
    (root / "dvc.yaml").write_text(text)
    (root / "params.yaml").write_text("size: 3\nnames: [a, b]\nmodel: {width: 8}\n")
    return Project(root)


def test_two_lists_of_paths_overlap_where_a_pair_does() -> None:
    draw = random.Random(0)

    def paths() -> list[str]:
        return ["/".join(draw.choices(("a", "ab"), k=draw.randint(1, 4))) for _ in range(3)]

    for ours, theirs in ((paths(), paths()) for _ in range(500)):
        pairs = any(stagefile.overlap(one, other) for one in ours for other in theirs)
        assert stagefile.any_overlap(ours, theirs) is pairs


def test_foreach_over_a_list_of_params_and_matrix(tmp_path: Path) -> None:
    project = write(
        tmp_path,
        """\
stages:
  each:
    foreach: ${names}
    do:
      cmd: echo ${item} ${model.width}
      outs: ["${item}-${size}"]
  grid:
    matrix:
      axis: ${names}
      size: [1, 2]
    cmd: echo ${item.axis} ${item.size} ${key}
""",
    )
    stages = stagefile.declared(project)
    assert list(stages) == ["each@a", "each@b", "grid@a-1", "grid@a-2", "grid@b-1", "grid@b-2"]
    assert stages["each@b"].cmd == "echo b 8"
    assert stages["each@b"].outs == ("b-3",)
    assert stages["grid@a-2"].cmd == "echo a 2 a-2"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    cmd: a\n    wdir: there\n", "wdir"),
        ("    cmd: [a, b]\n", "cmd"),
        ("    cmd: a\n    params: [other.yaml: [x]]\n", "another file"),
    ],
)
def test_what_is_unknown_here_says_so(tmp_path: Path, body: str, message: str) -> None:
    project = write(tmp_path, f"stages:\n  one:\n{body}")
    with pytest.raises(stagefile.UnsupportedStagefileError, match=message):
        stagefile.declared(project)


def test_a_template_without_value_and_a_circle_are_the_users_to_correct(tmp_path: Path) -> None:
    project = write(tmp_path, "stages:\n  one:\n    cmd: echo ${model.depth}\n")
    with pytest.raises(ConfigError, match=r"model\.depth"):
        stagefile.declared(project)
    project = write(
        tmp_path,
        "stages:\n  one: {cmd: a, deps: [x], outs: [y]}\n  two: {cmd: b, deps: [y], outs: [x]}\n",
    )
    with pytest.raises(ConfigError, match="circle"):
        stagefile.declared(project)


def test_hashes_are_those_of_dvc_lock(toy: Project) -> None:
    hasher = Hasher(toy, {})
    locks = stagefile.locked(toy)
    assert len(locks) == 6
    for lock in locks.values():
        for path, md5 in (lock.deps | lock.outs).items():
            assert hasher.md5(path) == md5, path


def test_awkward_names_hash_as_in_dvc(toy: Project, dvc: Callable[..., str]) -> None:
    folder = toy.root / "lapvqa" / "text"
    for name in ("ö ü.py", "a/b.py", "a.py", "A.py", "a-b/c.py", 'q"\\.py', ".hidden"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    (folder / "empty").mkdir()
    (folder / "link.py").symlink_to(folder / "a.py")
    dvc(toy.root, "repro", "-q", "-s", "tokens")
    assert Hasher(toy, {}).md5("lapvqa/text") == stagefile.locked(toy)["tokens"].deps["lapvqa/text"]


def test_a_known_stat_spares_reading_and_the_budget_limits_it(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 1000)
    first = Hasher(Project(tmp_path), {}).artefact("big")
    assert first is not None
    again = Hasher(Project(tmp_path), {"big": first}, budget=0)
    assert again.artefact("big") == first
    os.utime(tmp_path / "big", (1, 1))
    with pytest.raises(TooMuchToHashError):
        Hasher(Project(tmp_path), {"big": first}, budget=999).artefact("big")


def test_a_dangling_link_is_equal_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "nowhere")
    found = Hasher(Project(tmp_path), {}).artefact("folder")
    assert found is not None
    assert found["link"].md5 == ""
