"""Work that goes on when nobody reads what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SPEAKER = """
import sys, time
from pathlib import Path
from lapvqa.runtime import outlive_reader
if sys.argv[2] == "outlives":
    outlive_reader()
print("begun", flush=True)
sys.stdin.readline()
time.sleep(0.5)
for number in range(100):
    print("line", number, flush=True)
    print("line", number, file=sys.stderr, flush=True)
Path(sys.argv[1]).touch()
"""


@pytest.mark.parametrize("kind", ["outlives", "does not"])
def test_a_reader_that_is_gone_stops_nothing(tmp_path: Path, kind: str) -> None:
    done = tmp_path / "done"
    with subprocess.Popen(
        [sys.executable, "-c", SPEAKER, str(done), kind], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as speaker:  # fmt: skip
        assert speaker.stdin is not None
        assert speaker.stdout is not None
        assert speaker.stderr is not None
        assert speaker.stdout.readline() == "begun\n"
        speaker.stdout.close()
        speaker.stderr.close()
        speaker.stdin.write("go on\n")
        speaker.stdin.close()
        code = speaker.wait(timeout=60)
    assert (code == 0, done.exists()) == (kind == "outlives", kind == "outlives")
