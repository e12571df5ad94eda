"""Files that DVC writes in place, cut off by a kill anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pytest
from running_toy import Toy, wait_until

from lapvqa.uptodate import staleness
from lapvqa.uptodate.stagefile import CutLockError, locked
from tasks import dvc_repository

pytestmark = [pytest.mark.slow]


def test_a_run_keeps_a_copy_of_the_whole_file(copied: Toy) -> None:
    assert copied.project.kept_dvc_lock.read_bytes() == copied.lock


def test_wherever_it_is_cut_it_can_be_asked_and_mended(copied: Toy) -> None:
    whole, lines = copied.lock, []
    cut, mended = 0, 0
    for length in range(0, len(whole), 97):
        copied.project.dvc_lock.write_bytes(whole[:length])
        try:
            locked(copied.project)
        except CutLockError:
            cut += 1
            assert not staleness.nothing_to_do(staleness.check(copied.project))
        else:
            staleness.check(copied.project)
        was_whole = dvc_repository.dvc_lock_is_whole(copied.project)
        dvc_repository.mend_cut_files(copied.project, lines.append)
        assert copied.lock == (whole[:length] if was_whole else whole)
        mended += not was_whole
        locked(copied.project)
    assert cut > 0
    assert mended == len(lines) > 20


def test_the_next_run_ends_with_the_same_file_though_no_copy_is_left(copied: Toy) -> None:
    whole = copied.lock
    copied.project.kept_dvc_lock.unlink()
    end = whole.index(b"  pretrain:") + len(b"  pretrain:\n    cmd")
    copied.project.dvc_lock.write_bytes(whole[:end])
    (copied.root / ".dvc" / "tmp" / "rwlock").write_bytes(b"")
    run = copied.run()
    assert run.code == 0, run.text
    assert "dvc.lock was cut off" in run.text
    assert "rwlock was cut off" in run.text
    assert copied.lock == whole


def test_a_rwlock_that_is_cut_off_is_removed(copied: Toy) -> None:
    path = copied.root / ".dvc" / "tmp" / "rwlock"
    whole = b'{"write": {"/a": {"pid": 1, "cmd": "dvc repro"}}, "read": {}}'
    lines: list[str] = []
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        dvc_repository.mend_cut_files(copied.project, lines.append)
        assert not path.exists()
    assert len(lines) == len(whole)


def test_the_dead_are_forgotten_a_zombie_too_and_the_living_stay(copied: Toy) -> None:
    path = copied.root / ".dvc" / "tmp" / "rwlock"
    zombie = subprocess.Popen([sys.executable, "-c", "", "repro"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "repro"])
    wait_until(lambda: "repro" in psutil.Process(alive.pid).cmdline())
    reader = {"pid": alive.pid, "cmd": "dvc repro"}
    dead = {"pid": zombie.pid, "cmd": "dvc repro"}
    another = {"pid": alive.pid, "cmd": "dvc status"}
    users = {"write": {"/a": dead}, "read": {"/b": [reader, dead, another], "/c": [dead]}}
    path.write_text(json.dumps(users))
    dvc_repository.mend_cut_files(copied.project, lambda _: None)
    assert json.loads(path.read_bytes()) == {"write": {}, "read": {"/b": [reader]}}
    assert zombie.wait() == 0
    alive.kill()
    alive.wait()


def test_a_zombie_does_not_keep_a_run_waiting(copied: Toy) -> None:
    """As after a kill where nobody waits for orphans, such as in a container without an init."""
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    dead = {"pid": zombie.pid, "cmd": "dvc repro"}
    users = {"write": {str(copied.root / "data"): dead}, "read": {}}
    (copied.root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(users))
    stale = copied.project.root / "data"
    assert stale.exists()
    copied.project.dvc_lock.unlink()
    run = copied.run()
    assert run.code == 0, run.text
    zombie.wait()
