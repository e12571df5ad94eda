"""Patients in two splits and patients the pretraining has seen: raised, reported, excluded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapvqa.datasets.splits import check_leaks, count_reasons, lowest
from lapvqa.datasets.tables import Account
from lapvqa.errors import SourceError, SplitLeakError

PATIENTS = ["a", "b", "b", "c", "c", "d"]
SPLITS = ["train", "train", "test", "validate", "test", "test"]


def test_shared_patients_are_an_error_that_counts_them():
    with pytest.raises(SplitLeakError, match=r"train and test: 1; validate and test: 1\n") as found:
        check_leaks("X", PATIENTS, SPLITS, set(), between="raise", seen="report")
    assert "archive's split" in found.value.hint


def test_shared_patients_are_reported():
    reasons, leaks = check_leaks("X", PATIENTS, SPLITS, {"d"}, between="report", seen="report")
    assert reasons == [None] * 6
    assert leaks.between == {"train_and_validate": 0, "train_and_test": 1, "validate_and_test": 1}
    assert leaks.pretrained == {"train": 0, "validate": 0, "test": 1}
    assert leaks.describe()["patients_pretrained_on_test"] == 1


def test_excluded_patients_leave_the_split_before_the_test():
    reasons, leaks = check_leaks("X", PATIENTS, SPLITS, set(), between="exclude", seen="report")
    kept = {(p, s) for p, s, why in zip(PATIENTS, SPLITS, reasons, strict=True) if why is None}
    assert kept == {("a", "train"), ("b", "test"), ("c", "test"), ("d", "test")}
    assert sum(count_reasons(reasons).values()) == 2
    assert leaks.between["train_and_test"] == 1  # as found, before anything is left out


def test_patients_whom_the_pretraining_has_seen():
    with pytest.raises(SplitLeakError, match="found 1 in validate and 2 in test"):
        check_leaks("X", PATIENTS, SPLITS, {"c", "d"}, between="report", seen="raise")
    reasons, _ = check_leaks("X", PATIENTS, SPLITS, {"a", "d"}, between="report", seen="exclude")
    assert [why is None for why in reasons] == [True] * 5 + [False]  # training rows may stay


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["train", "validate", "test"])),
        max_size=30,
    ),
    st.sets(st.sampled_from("abcdef")),
)
def test_what_is_kept_never_leaks_and_the_test_stays_whole(rows, pretrained):
    patients, splits = [p for p, _ in rows], [s for _, s in rows]
    reasons, _ = check_leaks("X", patients, splits, pretrained, between="exclude", seen="report")
    kept = [row for row, why in zip(rows, reasons, strict=True) if why is None]
    assert len({s for _, s in set(kept)}) <= 3
    assert len({p for p, _ in kept}) == len(set(kept))  # one split per patient
    assert [row for row in kept if row[1] == "test"] == [row for row in rows if row[1] == "test"]
    reasons, _ = check_leaks("X", patients, splits, pretrained, between="exclude", seen="exclude")
    kept = [row for row, why in zip(rows, reasons, strict=True) if why is None]
    assert not {p for p, s in kept if s != "train"} & pretrained


def test_an_account_must_add_up():
    account = Account("rows", 3, 2, {"torn": 1, "never": 0})
    assert account.describe() == {"rows_read": 3, "rows_kept": 2, "rows_left_out: torn": 1}
    with pytest.raises(ValueError, match="3 read, 2 kept"):
        Account("rows", 3, 2, {})


def test_nothing_kept_is_an_error_with_the_reasons():
    Account("rows", 1, 1, {}).require_some("x.csv", hint="")
    with pytest.raises(SourceError, match=r"x.csv: expected rows.*among 3 \(late: 1; torn: 2\)"):
        Account("rows", 3, 0, {"torn": 2, "late": 1}).require_some("x.csv", hint="mend it")


@given(st.sets(st.text(max_size=4), min_size=2, max_size=40), st.floats(0.05, 0.6))
def test_a_drawn_share_leaves_some_on_both_sides(keys, share):
    chosen = lowest(keys, share, "p")
    assert 1 <= len(chosen) <= len(keys) - 1
    assert chosen == lowest(sorted(keys, reverse=True), share, "p")
