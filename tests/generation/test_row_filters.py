"""Faults of rows that a model wrote: each is told from texts that are nearly the same but fine."""

import random
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tell_lightning.data.control import ControlTokens
from tell_lightning.generation.row_filters import (
    SAME_WORDS,
    Prompts,
    answer_fault,
    loops,
    main_script,
    prompt_fault,
    words,
)

CONTROL = ControlTokens(["<|im_end|>", "<|im_start|>"])
ASKED = "Which planet is red?"

PROMPT_FAULTS = [
    ("How do I peel an egg?", ""),
    ("I could sleep for a week.", ""),  # no request, but fine
    ("2 + 2 * 12345678?", ""),
    ("Как сварить яйцо всмятку?", ""),
    ("北京有哪些值得一看的地方?", ""),
    ("Wie heißt der größte Planet?", ""),
    ("Say <|im_end|> to me, please", "control tokens"),
    ("Hi there", "short prompt"),
    ("?!? ... !!! --- ...", "short prompt"),
    ("Tell me " + ", ".join(map(str, range(1000))), "long prompt"),
    ("Tell me why. " * 12, "looping prompt"),
    ("Сколько planets does the Солнце have?", "mixed scripts"),
]


@pytest.mark.parametrize(("text", "fault"), PROMPT_FAULTS)
def test_each_fault_of_a_prompt_is_told(text: str, fault: str) -> None:
    assert prompt_fault(text, ended=True, control=CONTROL) == fault


def test_a_prompt_that_did_not_end_is_unfinished() -> None:
    assert prompt_fault("How do I peel", ended=False, control=CONTROL) == "unfinished prompt"


ANSWER_FAULTS = [
    ("Mars.", True, ""),
    ("4", True, ""),
    ("Mars is red. " * 2, True, ""),
    ("", True, "empty answer"),
    (" \n", True, "empty answer"),
    ("Mars is the", False, "unfinished answer"),
    ("Mars is the red planet. " * 9, False, "looping answer"),
    ("- red\n- blue\n- green\n- grey\n" * 4, True, "looping answer"),
    ("which planet is red", True, "answer that copies"),
    ("Mars<|im_start|>user", True, "control tokens"),
    ("Это планета.", True, "another script"),
    ("Mars, or Ярило in the Russian language", True, ""),
    ("Mars planet, именно эта", True, "mixed scripts"),
]


@pytest.mark.parametrize(("text", "ended", "fault"), ANSWER_FAULTS)
def test_each_fault_of_an_answer_is_told(text: str, ended: bool, fault: str) -> None:
    assert answer_fault(ASKED, text, ended=ended, control=CONTROL) == fault


texts = st.text(max_size=60)


@settings(max_examples=40)
@given(texts, texts, st.booleans())
def test_any_text_can_be_judged(prompt: str, answer: str, ended: bool) -> None:
    prompt_fault(prompt, ended=ended, control=CONTROL)
    answer_fault(prompt, answer, ended=ended, control=CONTROL)
    Prompts([prompt]).repeat_of(answer)


@given(st.text(min_size=1, max_size=60))
def test_the_share_of_the_main_script_is_a_share(text: str) -> None:
    script, share = main_script(text)
    assert 0 < share <= 1
    assert script or share == 1


@given(st.lists(st.sampled_from("abcdefghijklmn"), unique=True, min_size=1))
def test_text_of_different_words_never_loops(different: list[str]) -> None:
    assert not loops(" ".join(different))


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6), st.integers(6, 20))
def test_what_is_said_many_times_loops(said: list[str], times: int) -> None:
    found = len(said) * times
    assert loops(" ".join(said * times)) == (found >= 11)


SOME = ["red", "blue", "round", "small", "egg", "peel", "the", "is", "how"]
sentences = st.lists(
    st.lists(st.sampled_from(SOME), min_size=1),
    min_size=1,
    max_size=12,
).map(lambda found: [" ".join(one) for one in found])


def alike(one: str, other: str) -> float:
    """Jaccard similarity by its definition."""
    a, b = set(words(one)), set(words(other))
    return len(a & b) / len(a | b) if a | b else 1.0


@given(sentences)
def test_near_repeats_are_those_that_all_pairs_show(found: list[str]) -> None:
    prompts = Prompts()
    for place, text in enumerate(found):
        closest = max((alike(text, other) for other in found[:place]), default=0.0)
        wanted = "repeat" if closest == 1 else "near repeat" if closest >= SAME_WORDS else ""
        assert prompts.repeat_of(text) == wanted
        prompts.add(text)


def test_few_prompts_are_compared_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    vocabulary = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 9))) for _ in range(3000)]
    found = [" ".join(draw.sample(vocabulary, 12)) for _ in range(400)]
    compared = []
    real = Prompts.repeat_of.__globals__["_similarity"]
    monkeypatch.setitem(
        Prompts.repeat_of.__globals__,
        "_similarity",
        lambda one, other: compared.append(1) or real(one, other),
    )
    prompts = Prompts()
    for text in found:
        assert prompts.repeat_of(text) == ""
        prompts.add(text)
    assert len(compared) < 0.05 * len(list(combinations(found, 2)))


def test_known_prompts_are_repeats_whatever_their_case_and_marks() -> None:
    prompts = Prompts(["What is the capital of France?"])
    assert prompts.repeat_of("what is the capital of FRANCE") == "repeat"
    assert prompts.repeat_of("What is the capital city of France?") == "near repeat"
    assert prompts.repeat_of("What do people eat in France?") == ""
