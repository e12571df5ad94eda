"""A head trained on the tokens that occur is the head trained on all 50257."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_heads import VIS_DIM, inputs_of
from torch import Tensor

from lapvqa.diffvqa.model import DiffVQAHead
from lapvqa.heads.checkpoint import load, save
from lapvqa.heads.teaching import Lesson, teach
from lapvqa.heads.text import TextHead, cut_vocabulary, of_size, restore_vocabulary
from lapvqa.networks.decoder import GPT2_VOCABULARY
from lapvqa.networks.vocabulary import CutVocabulary
from lapvqa.rrg.heads import ReportGenerationHead
from lapvqa.vqa.model import VQAHead

SIZES = {"d_model": 32, "num_layers": 2, "nhead": 4}
KINDS = [of_size(kind, **SIZES) for kind in (VQAHead, DiffVQAHead, ReportGenerationHead)]
EOT = GPT2_VOCABULARY - 1
PROMPTS = [[318, 612], [810], [318, 612, 597], [810]]
ANSWERS = [[3763], [1364, 5387], [645], [31000, 11, 900]]
UNSEEN = [[3763], [77], [645], [645]]
STEPS = 8


def whole_head(kind: type[TextHead]) -> TextHead:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = kind(VIS_DIM, **SIZES) if kind.__name__ == "ReportGenerationHead" else kind(VIS_DIM)
    return head.eval().double()


def lesson_of(answers: list[list[int]] = ANSWERS) -> Lesson:
    return teach(PROMPTS, answers, bos_id=EOT, eos_id=EOT, max_length=20)


def numbered(words: CutVocabulary, lesson: Lesson) -> Lesson:
    return Lesson(words.number(lesson.token_ids), words.number(lesson.targets))


def cut_and_full(kind: type[TextHead]) -> tuple[TextHead, TextHead, CutVocabulary]:
    """Return one head twice: with cut tables, and with the full ones that they stand for."""
    head = whole_head(kind)
    texts = [[EOT, *prompt, *answer] for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    words = cut_vocabulary(head, texts)
    full = copy.deepcopy(head)
    restore_vocabulary(full, words)
    return head, full, words


def features_of(head: TextHead) -> dict[str, Tensor]:
    return {name: x.double() for name, x in inputs_of(head, 0, batch=4).items()}


def train(head: TextHead, lesson: Lesson, *, eps: float) -> list[float]:
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, eps=eps, weight_decay=0.05)
    inputs, losses = features_of(head), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = head.loss(**inputs, lesson=lesson)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("eps", "tolerance"), [(1e-13, 1e-7), (1e-8, 2e-3)])
def test_training_is_that_of_the_full_softmax(
    kind: type[TextHead], eps: float, tolerance: float
) -> None:
    """But for AdamW's epsilon, which sees one row where there would be many."""
    head, full, words = cut_and_full(kind)
    found = train(head, numbered(words, lesson_of()), eps=eps)
    assert found == pytest.approx(train(full, lesson_of(), eps=eps), rel=tolerance)
    assert found[0] == pytest.approx(math.log(GPT2_VOCABULARY), abs=0.5)
    assert found[-1] < found[0] - 5
    restore_vocabulary(head, words)
    if eps == 1e-13:
        torch.testing.assert_close(head.state_dict(), full.state_dict(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_tables_hold_what_occurs_and_a_row_for_the_rest(kind: type[TextHead]) -> None:
    head, full, words = cut_and_full(kind)
    occurring = {EOT, *(token for text in (*PROMPTS, *ANSWERS) for token in text)}
    assert words.kept.tolist() == sorted(occurring)
    assert head.vocabulary == head.lm_head.out_features == len(occurring) + 1
    assert head.lm_head.weight.shape == head.tok_emb.weight.shape == (head.vocabulary, 32)
    tied = kind.__name__ != "DiffVQAHead"
    assert (head.lm_head.weight is head.tok_emb.weight) == tied
    assert (full.lm_head.weight is full.tok_emb.weight) == tied
    assert full.vocabulary == full.lm_head.out_features == GPT2_VOCABULARY
    assert torch.equal(full.tok_emb.weight[words.kept], whole_head(kind).tok_emb.weight[words.kept])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answers", [ANSWERS, UNSEEN], ids=["seen", "unseen"])
def test_loss_of_a_trained_head_is_the_same_cut_and_restored(
    kind: type[TextHead], answers: list[list[int]]
) -> None:
    """A token that did not occur has its share of the row that stands for it."""
    head, _, words = cut_and_full(kind)
    train(head, numbered(words, lesson_of()), eps=1e-8)
    inputs, lesson = features_of(head), lesson_of(answers)
    before = head.loss(**inputs, lesson=numbered(words, lesson)).item()
    restore_vocabulary(head, words)
    assert head.loss(**inputs, lesson=lesson).item() == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_the_same_cut_and_restored(kind: type[TextHead]) -> None:
    head, _, words = cut_and_full(kind)
    lesson = numbered(words, lesson_of())
    for _ in range(4):
        train(head, lesson, eps=1e-8)
    inputs = {name: x[1::2] for name, x in features_of(head).items()}  # two prompts of one length
    prompts, end = torch.tensor(PROMPTS[1::2]), int(words.number(torch.tensor(EOT)))
    numbers = head.generate(
        **inputs, prompt_ids=words.number(prompts), bos_id=end, eos_id=end, max_new_tokens=8
    )
    restore_vocabulary(head, words)
    texts = head.generate(**inputs, prompt_ids=prompts, bos_id=EOT, eos_id=EOT, max_new_tokens=8)
    assert texts == [words.spell(row) for row in numbers] == ANSWERS[1::2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_of_a_restored_head_is_the_published_form(
    kind: type[TextHead], tmp_path: Path
) -> None:
    head, _, words = cut_and_full(kind)
    train(head, numbered(words, lesson_of()), eps=1e-8)
    restore_vocabulary(head, words)
    facts: dict[str, Any] = dict.fromkeys(kind.form.facts, 0)
    save(head.float(), tmp_path / "head.pt", **facts)
    again = load(kind, tmp_path / "head.pt").head
    assert again.tok_emb.weight.shape == again.lm_head.weight.shape == (GPT2_VOCABULARY, 32)
    assert again.log_count is None
    torch.testing.assert_close(again.state_dict(), head.state_dict(), rtol=0, atol=0)


def test_what_cannot_be_cut_or_restored_is_refused() -> None:
    head, full, words = cut_and_full(KINDS[0])
    with pytest.raises(ValueError, match="expected a head of 50257 tokens, found 13"):
        cut_vocabulary(head, PROMPTS)
    with pytest.raises(ValueError, match="expected a head of 13 tokens, found 50257"):
        restore_vocabulary(full, words)
