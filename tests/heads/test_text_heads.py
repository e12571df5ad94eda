"""Heads that write: what they read, what they learn from, what they write, at tiny sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_heads import (
    END,
    POSITIONS,
    TOKENS,
    VIS_DIM,
    VOCABULARY,
    TinyDiffVQA,
    TinyReport,
    TinyVQA,
    inputs_of,
    make,
    make_talkative,
    without_dropout,
)
from torch import Tensor
from torch.nn import functional as F

from lapvqa.heads.teaching import NO_TARGET, by_length, teach
from lapvqa.heads.text import TextHead
from lapvqa.networks.decoder import Cache

KINDS = [TinyVQA, TinyDiffVQA, TinyReport]
MAX_NEW = 24
SEEDS = 5


@torch.no_grad()
def plain_loop(
    head: TextHead, inputs: dict[str, Tensor], prompt_ids: Tensor, count: int = MAX_NEW
) -> list[list[int]]:
    """Write as anybody would: one image at a time, all of the text again for each token."""
    texts = []
    for row in range(len(prompt_ids)):
        one = {name: features[row : row + 1] for name, features in inputs.items()}
        ids = [END, *prompt_ids[row].tolist()]
        text: list[int] = []
        while len(text) < count:
            logits = head(**one, token_ids=torch.tensor([ids + text]))
            chosen = int(logits[0, -1].argmax())
            if chosen == END:
                break
            text.append(chosen)
        texts.append(text)
    return texts


def prompts_of(seed: int, length: int, batch: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, END, (batch, length), generator=generator)


def write(head: Any, inputs: dict[str, Tensor], prompts: Tensor, **how: Any) -> list[list[int]]:
    how = {"max_new_tokens": MAX_NEW, "bos_id": END, "eos_id": END, **how}
    texts: list[list[int]] = head.generate(**inputs, prompt_ids=prompts, **how)
    return texts


@pytest.mark.parametrize("kind", KINDS)
def test_kept_keys_and_values_change_no_token(kind: type[TextHead]) -> None:
    lengths = set()
    for seed in range(SEEDS):
        head = make_talkative(kind, seed)
        inputs = inputs_of(head, seed)
        for length in (0, 1, 4):
            prompts = prompts_of(seed, length)
            found = write(head, inputs, prompts)
            assert found == plain_loop(head, inputs, prompts), f"seed {seed}, prompt {length}"
            lengths |= {len(text) for text in found}
    assert len(lengths) >= 8, "texts of few lengths would not test that finished rows leave"


@pytest.mark.parametrize("kind", KINDS)
def test_generate_has_no_dropout_in_any_mode(kind: type[TextHead]) -> None:
    head = make_talkative(kind, 1)
    inputs, prompts = inputs_of(head, 1), prompts_of(1, 3)
    expected = write(head, inputs, prompts)
    assert write(head.train(), inputs, prompts) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_does_not_depend_on_its_batch(kind: type[TextHead]) -> None:
    head = make_talkative(kind, 1)
    inputs, prompts = inputs_of(head, 1), prompts_of(1, 3)
    together = write(head, inputs, prompts)
    for row, text in enumerate(together):
        one = {name: features[row : row + 1] for name, features in inputs.items()}
        assert write(head, one, prompts[row : row + 1]) == [text]


def test_features_are_read_once_and_finished_rows_leave() -> None:
    rows, read = [], []

    class Watched(TinyVQA):
        def memory(self, vis_tokens: Tensor) -> Tensor:
            read.append(len(vis_tokens))
            return super().memory(vis_tokens)

        def extend(self, token_ids: Tensor, cache: Cache) -> Tensor:
            rows.append(len(token_ids))
            return super().extend(token_ids, cache)

    head = make_talkative(Watched, 11)
    texts = write(head, inputs_of(head, 11, batch=16), prompts_of(11, 2, batch=16))
    assert read == [16]
    lengths = [len(text) for text in texts]
    steps = min(MAX_NEW, 1 + max(lengths))
    assert rows == [16, *(sum(n >= step for n in lengths) for step in range(1, steps))]
    assert len(set(rows)) > 2


def test_questions_of_many_lengths_go_in_groups() -> None:
    head = make_talkative(TinyVQA, 4)
    inputs = inputs_of(head, 4)
    prompts = [[1], [2, 3, 4], [5], [], [6, 7, 8], [9, 9]]
    found: dict[int, list[int]] = {}
    for rows, prompt_ids in by_length(prompts):
        texts = write(head, {"vis_tokens": inputs["vis_tokens"][rows]}, prompt_ids)
        found |= dict(zip(rows, texts, strict=True))
    assert sorted(found) == list(range(6))
    for row, prompt in enumerate(prompts):
        one = {"vis_tokens": inputs["vis_tokens"][row : row + 1]}
        assert [found[row]] == plain_loop(head, one, torch.tensor([prompt], dtype=torch.long))


def test_a_report_needs_no_prompt() -> None:
    head = make_talkative(TinyReport, 6)
    inputs = inputs_of(head, 6)
    found = head.generate(**inputs, bos_id=END, eos_id=END, max_new_tokens=MAX_NEW)
    assert found == write(head, inputs, prompts_of(6, 0))
    assert len(set(map(tuple, found))) > 1


def test_no_images_no_texts() -> None:
    head = make_talkative(TinyReport, 0)
    empty = torch.empty(0, TOKENS, VIS_DIM)
    assert head.generate(vis_tokens=empty, bos_id=END, eos_id=END, max_new_tokens=4) == []


def test_a_text_may_fill_every_position_and_no_more() -> None:
    head = make_talkative(TinyVQA, 0)
    inputs, prompts = inputs_of(head, 0), prompts_of(0, 3)
    with torch.no_grad():
        head.lm_head.weight[END] = 0
        head.lm_head.weight[:END].abs_()
    fitting = head.max_length + 1 - 1 - 3
    texts = write(head, inputs, prompts, max_new_tokens=fitting)
    assert max(map(len, texts)) == fitting
    with pytest.raises(ValueError, match=rf"expected 1\.\.{fitting}"):
        write(head, inputs, prompts, max_new_tokens=fitting + 1)


# What is learnt from


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_answers_tokens(kind: type[TextHead]) -> None:
    head = make_talkative(kind, 6)
    inputs = inputs_of(head, 6, batch=3)
    prompts, answers = [[1, 2], [3], [4, 5, 6]], [[7], [8, 9, 10], []]
    lesson = teach(prompts, answers, bos_id=END, eos_id=END, max_length=POSITIONS)
    losses = []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        one = {name: features[row : row + 1] for name, features in inputs.items()}
        ids = torch.tensor([[END, *prompt, *answer]])
        log_p = F.log_softmax(head(**one, token_ids=ids)[0], dim=-1)
        for place, token in enumerate([*answer, END], start=len(prompt)):
            losses.append(-log_p[place, token])
    assert len(losses) == 2 + 4 + 1
    found = head.loss(**inputs, lesson=lesson)
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


def test_a_lesson_by_hand() -> None:
    lesson = teach([[1, 2], []], [[3], [4, 5]], bos_id=10, eos_id=11, max_length=4)
    no = NO_TARGET
    assert lesson.token_ids.tolist() == [[10, 1, 2, 3], [10, 4, 5, 11]]
    assert lesson.targets.tolist() == [[no, no, 3, 11], [4, 5, 11, no]]


def test_a_text_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"row 1: .* 2 and an answer of 3 tokens need 6 .* most 5"):
        teach([[1], [1, 2]], [[3], [3, 4, 5]], bos_id=0, eos_id=0, max_length=5)


def test_later_tokens_change_no_earlier_logits() -> None:
    head = make_talkative(TinyVQA, 7)
    inputs = inputs_of(head, 7)
    ids = prompts_of(7, 8)
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % END
    a, b = head(**inputs, token_ids=ids), head(**inputs, token_ids=changed)
    torch.testing.assert_close(a[:, :5], b[:, :5])
    assert not torch.allclose(a[:, 5:], b[:, 5:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_learns_what_only_the_images_and_questions_say(kind: type[TextHead]) -> None:
    """Sixteen pairs of image and question, two questions, an answer from both."""
    head = without_dropout(make(kind, 8))
    inputs = inputs_of(head, 8, batch=16)
    generator = torch.Generator().manual_seed(8)
    prompts = [[20, row % 2] for row in range(16)]
    answers = [
        torch.randint(0, 20, (1 + row % 4,), generator=generator).tolist() for row in range(16)
    ]
    lesson = teach(prompts, answers, bos_id=END, eos_id=END, max_length=POSITIONS)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    first = head.loss(**inputs, lesson=lesson).item()
    assert abs(first - math.log(VOCABULARY)) < 1
    for _ in range(160):
        optimizer.zero_grad()
        loss = head.loss(**inputs, lesson=lesson)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01
    assert write(head.eval(), inputs, torch.tensor(prompts)) == answers


# What is peculiar to two images


def test_the_memory_is_reference_then_current_with_their_frames() -> None:
    head = make_talkative(TinyDiffVQA, 9)
    inputs = inputs_of(head, 9)
    memory = head.memory(**inputs)
    assert memory.shape == (6, 2 * TOKENS, 32)
    projected = {name: F.linear(x, head.vis_proj.weight, head.vis_proj.bias)
                 for name, x in inputs.items()}  # fmt: skip
    frames = head.frame_emb.weight
    torch.testing.assert_close(memory[:, :TOKENS], projected["ref_vis"] + frames[0])
    torch.testing.assert_close(memory[:, TOKENS:], projected["curr_vis"] + frames[1])


def test_the_order_in_time_matters_by_the_frames_alone() -> None:
    head = make_talkative(TinyDiffVQA, 10)
    inputs, ids = inputs_of(head, 10), prompts_of(10, 4)
    swapped = {"curr_vis": inputs["ref_vis"], "ref_vis": inputs["curr_vis"]}
    assert not torch.allclose(head(**inputs, token_ids=ids), head(**swapped, token_ids=ids))
    with torch.no_grad():
        head.frame_emb.weight[1] = head.frame_emb.weight[0]
    torch.testing.assert_close(
        head(**inputs, token_ids=ids), head(**swapped, token_ids=ids), rtol=1e-4, atol=1e-4
    )


# What has no answer


def test_layers_start_with_weights_of_their_own() -> None:
    for kind in KINDS:
        first, second = make(kind).decoder.layers
        weights = zip(first.parameters(), second.parameters(), strict=True)
        assert not any(torch.equal(a, b) for a, b in weights if a.ndim > 1)


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        (
            TinyVQA,
            {"vis_tokens": torch.zeros(6, 5, 13)},
            r"vis_tokens: .* 12\], found \[6, 5, 13\]",
        ),
        (TinyVQA, {"vis_tokens": torch.zeros(6, 12)}, r"expected \[B, N, 12\], found \[6, 12\]"),
        (TinyDiffVQA, {"ref_vis": torch.zeros(6, 5, 9)}, r"ref_vis: expected \[B, N, 12\]"),
        (TinyDiffVQA, {"ref_vis": torch.zeros(5, 5, 12)}, "a reference for each of 6 .* found 5"),
        (TinyVQA, {"prompt_ids": torch.full((6, 2), 40)}, "token 40 is not in the table of 23"),
        (TinyVQA, {"prompt_ids": torch.zeros(5, 2, dtype=torch.long)}, "each of 6 images"),
        (TinyVQA, {"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_arguments_without_an_answer(
    kind: type[TextHead], changed: dict[str, Any], message: str
) -> None:
    head: Any = make(kind)
    arguments = {**inputs_of(head, 0), "prompt_ids": prompts_of(0, 2), "bos_id": END, "eos_id": END}
    with pytest.raises(ValueError, match=message):
        head.generate(**{"max_new_tokens": 4, **arguments, **changed})


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of 5 heads, found 32"):
        TinyReport(VIS_DIM, 32, 2, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_heads_learn_and_write_under_autocast(kind: type[TextHead]) -> None:
    head = make(kind, 11).eval()
    inputs, prompts = inputs_of(head, 11), prompts_of(11, 2)
    lesson = teach(prompts.tolist(), [[1, 2]] * 6, bos_id=END, eos_id=END, max_length=POSITIONS)
    exact = head.loss(**inputs, lesson=lesson)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.loss(**inputs, lesson=lesson)
        texts = write(head, inputs, prompts, max_new_tokens=3)
    loss.backward()
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    assert [len(text) <= 3 for text in texts] == [True] * 6
    assert all(p.grad is not None for p in head.decoder.parameters())
