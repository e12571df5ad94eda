"""A gate from predictions to a signed verdict: what it decides, refuses, spends and keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from contest import COMMON, GATE, Contest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.evaluation import sealed
from lapvqa.evaluation.results import METRICS, Contamination
from lapvqa.gate import looks
from lapvqa.gate.endpoints import find_all
from lapvqa.gate.judge import Judgement, ask, judge
from lapvqa.gate.verdict import SPENT, Outcome
from lapvqa.lineage import ledger, signing
from lapvqa.lineage.ledger import DECISION, LOOK
from lapvqa.params import GateParams, load_params
from lapvqa.project import Project

OTHER = Contamination(("other",), {"training_of_another_run": 3})
LEAK = Contamination(("left",), {"film": 1})


@pytest.fixture
def contest(tmp_path: Path, repository: Path) -> Contest:
    """300 test patients whose results were shown, then 600 more, of whom half are sealed."""
    params = load_params(repository / "params.yaml")
    evaluate = params.evaluate.model_copy(update={"common": COMMON})
    params = params.model_copy(update={"gate": GATE, "evaluate": evaluate})
    made = Contest(Project(tmp_path), params)
    made.arrive(300)
    made.seal()
    made.arrive(600)
    return made


def entries(contest: Contest, kind: str) -> list[dict]:
    return [
        entry.payload for entry in ledger.entries(contest.project)
        if entry.kind == kind and entry.payload
    ]  # fmt: skip


def gate(contest: Contest, champion: str = "old", anchor: str | None = None) -> Judgement:
    return judge(
        contest.project, contest.trained(), contest.model(champion),
        contest.model(anchor) if anchor else None, contest.params,
    )  # fmt: skip


def test_a_better_model_is_promoted_and_the_verdict_is_signed(contest: Contest) -> None:
    contest.pipeline(trained=0.8, untrained=0.3)
    contest.other("old", 0.6)
    judged = gate(contest)
    assert judged.verdict.outcome is Outcome.PROMOTE
    assert not judged.optimistic
    assert judged.left_out == ("source: no table tells it", "sex: no table tells it")
    (look,), (said,) = entries(contest, LOOK), entries(contest, DECISION)
    assert (look["level"], look["new_patients"]) == (0.05 * 0.05, look["number_of_patients"])
    assert said["verdict"] == "promote"
    assert said["candidate"] == "c" * 64
    assert said["inputs"] == {
        path: storage.sha256_file(contest.project.root / path)
        for path in ("results/vqa/sealed.parquet", "evaluations/old/vqa/sealed.parquet")
    }
    assert judged.file is not None
    key = signing.public_key(contest.project)
    statement = signing.verify(judged.file.read_bytes(), key)
    assert statement["predicate"]["decision_id"] == judged.decision
    assert signing.subjects(statement) == {"encoder.safetensors": "c" * 64}
    assert ledger.verify(contest.project) == []


def test_shown_numbers_and_verdict_are_of_different_patients(contest: Contest) -> None:
    """Good on those who are shown, no better on those who are sealed: not promoted."""
    contest.pipeline(trained=0.6, untrained=0.3)
    contest.other("old", 0.6)
    hidden = sealed.sealed_patients(contest.project)
    shown = json.loads((contest.project.root / "results" / "vqa" / METRICS).read_text())
    assert shown["num_patients"] == len(contest.patients) - len(hidden)
    judged = gate(contest)
    assert judged.verdict.outcome is not Outcome.PROMOTE
    said = json.dumps(entries(contest, DECISION)[0]["reasons"])
    assert "0." not in said, "a reason tells a number of the sealed set"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda c: c.other("old", 0.6, drop="p00899"), "tested on other patients"),
        (lambda c: c.other("old", 0.6, digests={"old": "else"}), "foreign predictions"),
        (lambda c: c.other("old", 0.6, stamp=LEAK), "champion: contaminated (film)"),
        (lambda c: c.other("old", 0.6, stamp=None), "nobody has looked"),
        (lambda c: c.other("old", 0.6, stamp=OTHER), "does not say whom it was trained on"),
        (lambda c: None, "no predictions of the champion"),
        (
            lambda c: (
                c.other("old", 0.6),
                c.predict(c.project.root / "results", {"trained": 0.8}, stamp=OTHER),
            ),
            "candidate: unknown training (training_of_another_run)",
        ),
    ],
)
def test_what_must_not_be_used_is_refused_and_costs_nothing(
    contest: Contest, spoil: Callable[[Contest], object], reason: str
) -> None:
    contest.pipeline(trained=0.8, untrained=0.3)
    spoil(contest)
    judged = gate(contest)
    assert judged.verdict.outcome is Outcome.INCONCLUSIVE
    assert any(reason in why for why in judged.verdict.reasons), judged.verdict.reasons
    assert entries(contest, LOOK) == []
    assert entries(contest, DECISION)[0]["verdict"] == "inconclusive"


def test_an_older_champion_passes_unless_it_was_trained_on_who_is_tested(contest: Contest) -> None:
    contest.pipeline(trained=0.8, untrained=0.3)
    contest.other("old", 0.6, stamp=OTHER)
    contest.tell_training(contest.model("old"), ["p-of-long-ago"])
    assert gate(contest).verdict.outcome is Outcome.PROMOTE
    one = min(sealed.sealed_patients(contest.project))
    contest.other("young", 0.6, stamp=OTHER)
    contest.tell_training(contest.model("young"), [one, "p-of-long-ago"])
    refused = gate(contest, "young")
    assert "trained on 1 of its test patients" in refused.verdict.reasons[0]
    assert one not in json.dumps(refused.verdict.reasons)


def test_a_slice_that_got_worse_keeps_a_better_model_out(contest: Contest) -> None:
    results = contest.project.root / "results"
    contest.predict(results, {"trained": 0.99}, worse_in="PA")
    contest.other("old", 0.4)
    judged = gate(contest)
    assert judged.verdict.outcome is Outcome.REJECT
    assert any("in view PA" in reason for reason in judged.verdict.reasons)


def test_small_steps_do_not_add_up_below_the_anchor(contest: Contest) -> None:
    contest.pipeline(trained=0.6, untrained=0.3)
    contest.other("old", 0.4)
    contest.other("first", 0.8)
    assert gate(contest).verdict.outcome is Outcome.PROMOTE
    judged = gate(contest, anchor="first")
    assert judged.verdict.outcome is Outcome.REJECT
    worse = "against the anchor: worse by more than its margin"
    assert set(judged.verdict.reasons) == {f"vqa.exact_match {worse}", f"vqa.token_f1 {worse}"}


def test_the_first_champion_beats_the_untrained_encoder_on_shown_patients(
    tmp_path: Path, contest: Contest
) -> None:
    early = Contest(Project(tmp_path / "early"), contest.params)
    early.arrive(200)
    early.pipeline(trained=0.6, untrained=0.3)
    judged = judge(early.project, early.trained(), early.untrained(), None, early.params)
    assert judged.verdict.outcome is Outcome.PROMOTE
    assert judged.optimistic
    assert judged.manifest == looks.SHOWN
    assert judged.verdict.reasons == ("vqa.exact_match: better than the untrained encoder",)
    early.other("old", 0.1)
    later = gate(early)
    assert "lapvqa gate --seal" in later.verdict.reasons[0], "shown patients judge nobody else"


def test_a_sealed_set_that_is_still_too_small_is_not_asked(
    tmp_path: Path, contest: Contest
) -> None:
    young = Contest(Project(tmp_path / "young"), contest.params)
    young.arrive(100)
    young.seal()
    young.arrive(20)
    young.pipeline(trained=0.9, untrained=0.3)
    young.other("old", 0.1)
    judged = gate(young)
    assert "30 are asked" in judged.verdict.reasons[0]
    assert entries(young, LOOK) == []


def set_budget(contest: Contest, **budget: float) -> None:
    rule = GATE.model_copy(update={"budget": GATE.budget.model_copy(update=budget)})
    contest.params = contest.params.model_copy(update={"gate": rule})


def test_looks_spend_until_the_gate_refuses_and_a_killed_one_is_spent(contest: Contest) -> None:
    set_budget(contest, total=0.002, share=0.5)
    contest.pipeline(trained=0.6, untrained=0.3)
    contest.other("old", 0.6)
    looks.take(  # killed before it has read a score
        contest.project, "sealed r1", contest.patients[:3], ask(
            contest.project, contest.trained(), contest.model("old"), None, contest.params
        ).budget, {},
    )  # fmt: skip
    levels = []
    for seed in range(4):  # the same candidate again would be answered from the ledger
        contest.predict(contest.project.root / "results", {"trained": 0.6}, seed=seed)
        levels.append(gate(contest).verdict.level)
    assert levels == pytest.approx([0.0005, 0.00025, 0.000125, 0.0])
    assert sum(look["level"] for look in entries(contest, LOOK)) <= 0.002
    assert entries(contest, DECISION)[-1]["reasons"] == [SPENT]
    assert [look["new_patients"] > 0 for look in entries(contest, LOOK)] == [
        True, True, False, False,
    ]  # fmt: skip


@settings(max_examples=8)
@given(st.integers(0, 1000))
def test_a_model_that_is_the_same_is_never_promoted(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    params = params.model_copy(
        update={"gate": GATE, "evaluate": params.evaluate.model_copy(update={"common": COMMON})}
    )
    made = Contest(Project(tmp_path_factory.mktemp("same")), params)
    made.seal()
    made.arrive(150)
    made.predict(made.project.root / "results", {"trained": 0.5}, seed=seed)
    made.other("old", 0.5, seed=seed)
    assert gate(made).verdict.outcome is not Outcome.PROMOTE


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"primary": ["probe_nih14.mean_auc"]}, "everybody has seen"),
        ({"primary": ["vqaa.exact_match"]}, "vqaa"),
        ({"margins": {"probe_nih14.mean_ece": 0.1}}, "smaller is better"),
        ({"primary": ["probe_archive.mean_auk"]}, "no metric of evaluation probe_archive"),
        ({"primary": ["rrg.mean_auc"]}, "no metric of evaluation rrg"),
        ({"margins": {"rrg.finding_f1_marco": 0.1}}, "no metric of evaluation rrg"),
        ({"margins": {"vqa.bleu/type:abnormality": 0.1}}, "no metric of evaluation vqa"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused(names: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        find_all(GateParams(**names))


def test_a_rule_may_name_a_group_that_comes_with_the_data() -> None:
    names = {"vqa.exact_match/type:presence": 0.1, "probe_archive.auc/Edema": 0.1}
    assert set(find_all(GateParams(margins=names))) > set(names)


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("exact_match/type:weather", "there is no such metric of the candidate's predictions"),
        ("exact_match/open", "no open question (champion)"),
    ],
)
def test_a_metric_without_a_value_costs_no_look(contest: Contest, metric: str, reason: str) -> None:
    margins = {f"vqa.{metric}": 0.1}
    rule = GATE.model_copy(update={"margins": margins})
    contest.params = contest.params.model_copy(update={"gate": rule})
    contest.pipeline(trained=0.8, untrained=0.3)
    contest.other("old", 0.6)
    judged = gate(contest)
    assert judged.verdict.outcome is Outcome.INCONCLUSIVE
    assert f"vqa.{metric}: {reason}" in judged.verdict.reasons
    assert entries(contest, LOOK) == []


def test_the_same_question_has_its_verdict_and_costs_one_look(contest: Contest) -> None:
    contest.pipeline(trained=0.6, untrained=0.3)
    contest.other("old", 0.6)
    first = gate(contest)
    assert first.verdict.outcome is not Outcome.PROMOTE
    assert first.file is not None
    again = gate(contest)
    assert (again.verdict, again.decision, again.file) == (
        first.verdict, first.decision, first.file,
    )  # fmt: skip
    assert again.given
    first.file.unlink()  # as a gate leaves it that is killed before it signs
    assert gate(contest).file == first.file
    assert first.file.exists()
    assert [len(entries(contest, kind)) for kind in (LOOK, DECISION)] == [1, 1]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: (c.arrive(50), c.pipeline(trained=0.6, untrained=0.3), c.other("old", 0.6)),
        lambda c: c.other("old", 0.5),
        lambda c: setattr(
            c, "params",
            c.params.model_copy(update={"gate": GATE.model_copy(update={"worthwhile": 0.03})}),
        ),
    ],
    ids=["patients", "predictions", "rule"],
)  # fmt: skip
def test_another_question_is_another_look(
    contest: Contest, change: Callable[[Contest], object]
) -> None:
    contest.pipeline(trained=0.6, untrained=0.3)
    contest.other("old", 0.6)
    gate(contest)
    change(contest)
    assert not gate(contest).given
    assert len(entries(contest, LOOK)) == 2


def test_another_champion_is_another_question(contest: Contest) -> None:
    contest.pipeline(trained=0.6, untrained=0.3)
    contest.other("old", 0.6)
    contest.other("new", 0.6)
    assert gate(contest).decision != gate(contest, "new").decision
    assert len(entries(contest, LOOK)) == 2


def test_a_verdict_that_stands_is_told_when_the_budget_is_spent(contest: Contest) -> None:
    """A spent budget refuses another look, with the way out, not what is known."""
    set_budget(contest, total=0.002, share=1.0)
    contest.pipeline(trained=0.6, untrained=0.3)
    contest.other("old", 0.6)
    first = gate(contest)
    assert gate(contest).decision == first.decision
    contest.predict(contest.project.root / "results", {"trained": 0.6}, seed=1)
    question = ask(contest.project, contest.trained(), contest.model("old"), None, contest.params)
    assert question.hindrances == (SPENT,)
    assert "--seal --new-round" in SPENT
