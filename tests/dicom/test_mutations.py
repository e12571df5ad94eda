"""No file, whatever became of it, is silently lost, silently wrong, or the end of the run.

``LAPVQA_MUTATIONS=10000`` looks at so many damaged files; benchmarks/dicom_table.py keeps a table.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from independent import Oracle
from mutations import bases, mutated
from survey import Outcome, as_radiograph, mutations, shipped, survey

from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.render import read_image

pytestmark = pytest.mark.skipif(
    shutil.which("dcmdjpeg") is None,
    reason="dcmdjpeg is not here (Debian: dcmtk); pydicom has no decoder for JPEG of 12 bits",
)
NUMBER = int(os.environ.get("LAPVQA_MUTATIONS", "400"))
ABORTS_GDCM = 1391
# Files that pydicom ships because they are damaged, or at odds with the standard, as a DX image.
AT_ODDS = {
    "JPEG2000-embedded-sequence-delimiter.dcm": "wrong_length",
    "MR_truncated.dcm": "truncated",
}
BY_RULE = {
    "not_a_radiograph", "companion", "too_small", "multi_frame", "unsupported_photometric",
    "unsupported_bits",
}  # fmt: skip


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def test_whole_files_are_shown_as_pydicom_shows_them(oracle: Oracle) -> None:
    for name, data in bases().items():
        answer = oracle.ask(data, read_image(data).pixels)
        assert answer.agrees, (name, answer)
        assert max(answer.differences) <= 1, (name, answer)
    oracle.close()


def test_the_comparison_sees_what_is_wrong(oracle: Oracle) -> None:
    data = bases()["large, window"]
    right = read_image(data).pixels
    wrong = {
        "inverted": 255 - right,
        "moved by a pixel": np.roll(right, 1, axis=1),
        "turned": right.T.copy(),
        "blank": np.zeros_like(right),
        "brighter": np.minimum(right.astype(int) + 3, 255).astype(np.uint8),
    }
    assert oracle.ask(data, right).agrees
    assert not any(oracle.ask(data, pixels).agrees for pixels in wrong.values())
    oracle.close()


@pytest.mark.parametrize("rewritten", [False, True], ids=["as they are", "as DX"])
def test_every_image_that_pydicom_ships_has_an_outcome(rewritten: bool, tmp_path: Path) -> None:
    files = shipped()
    assert len(files) > 80
    if rewritten:
        files = {name: as_radiograph(data) for name, data in files.items()}
    found = {outcome.name: outcome for outcome in survey(files.items(), tmp_path)}
    assert found.keys() == files.keys()
    verdicts = {name.split("; ")[-1]: outcome.verdict for name, outcome in found.items()}
    assert not {name for name, verdict in verdicts.items() if verdict == "WRONG"}
    odd = {
        name: verdict
        for name, verdict in verdicts.items()
        if verdict not in BY_RULE | {"decoded", "decoded, stated"}
    }
    assert odd.items() <= AT_ODDS.items()
    decoded = [outcome for outcome in found.values() if outcome.answer]
    syntaxes = {outcome.result.transfer_syntax for outcome in decoded}
    assert (len(decoded), len(syntaxes)) >= ((35, 10) if rewritten else (20, 7))


def test_damaged_files_are_turned_away_or_shown_as_pydicom_shows_them(tmp_path: Path) -> None:
    found = list(survey(mutations(range(NUMBER)), tmp_path))
    assert len({outcome.name for outcome in found}) == len(found) == NUMBER
    verdicts = Counter(outcome.verdict for outcome in found)
    assert not [_explained(outcome) for outcome in found if outcome.verdict == "WRONG"]
    assert verdicts["decoded"] > 0.2 * NUMBER
    assert verdicts["decoded, stated"] <= 0.005 * NUMBER
    assert verdicts[Reason.DECODER_CRASHED] <= 0.002 * NUMBER
    assert not verdicts[Reason.TIMED_OUT] + verdicts[Reason.OUT_OF_MEMORY]
    shown = [outcome.result.pixels for outcome in found if outcome.result.pixels is not None]
    assert all(int(pixels.max()) - int(pixels.min()) >= 2 for pixels in shown)


def _explained(outcome: Outcome) -> tuple[str, object]:
    return outcome.name, outcome.answer


def test_a_decoder_that_aborts_costs_its_file_only(tmp_path: Path) -> None:
    """The damage lets gdcm throw where nobody catches: its process ends."""
    number = [ABORTS_GDCM, *range(6)]
    found = {int(o.name[:5]): o.result for o in survey(mutations(number), tmp_path)}
    assert set(found) == set(number)
    crashed = found.pop(ABORTS_GDCM)
    assert (crashed.reason, crashed.exception) == ("decoder_crashed", "SIGABRT")
    assert not any(result.reason == "decoder_crashed" for result in found.values())


def test_mutations_are_functions_of_their_number() -> None:
    assert [mutated(n) for n in range(40)] == [mutated(n) for n in range(40)]
    assert sum(mutated(n)[2] == bases()[mutated(n)[0]] for n in range(200)) < 20
