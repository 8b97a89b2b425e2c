import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import sacrebleu

from tell_lightning.commands.check import check
from tell_lightning.data.anchors import reference_text, strip_anchor
from tell_lightning.data.reading import read_records
from tell_lightning.metrics.kinds.translation import (
    corpus_sums,
    join_lines,
    line_mismatch_rate,
)
from tell_lightning.metrics.predictions import strip_prefix
from tell_lightning.metrics.score import baselines, score
from tell_lightning.metrics.settings import Baseline, Scoring

CONFIGS = Path(__file__).parents[3] / "configs"
DATA = CONFIGS.parents[1] / "shared" / "data" / "tell"
DOCUMENT = ("bleu", "chrf", "chrf_pp")
LINES = tuple(f"{name}_lines" for name in DOCUMENT)
CORPUS = DOCUMENT + LINES


def corpus(
    answers: Sequence[str], references: Sequence[str], *, ter: bool = False
) -> dict[str, float]:
    sums = corpus_sums(answers, references, ter=ter)
    return {name: value for each in sums for name, value in each.whole().items()}


PREFIX = "Sure, here is the Icelandic translation: \n\n "


@pytest.mark.long
def test_scores_of_the_real_test_set_are_those_of_sacrebleu(read_tell, predict):
    rows = read_tell("test-en-is.jsonl")
    references = [strip_prefix(row["response"], PREFIX)[0] for row in rows]
    sources = [row["query"].split("\n\n", 1)[1].strip() for row in rows]
    # Half of the words right, lines broken elsewhere: a score that is neither 0 nor 100.
    answers = [
        "\n".join(word if i % 7 else "hús" for i, word in enumerate(text.split()))
        for text in references
    ]
    assert len(rows) == 65

    predictions = predict(answers, references, [{"source": text} for text in sources])
    scoring = Scoring(kind="translation", baselines={"copy": Baseline(field="source")})
    ours = score(scoring, predictions)
    copied = baselines(scoring, predictions)["copy"]

    flat = [text.replace("\n", " ") for text in references]
    for scores, texts in ((ours, answers), (copied, sources)):
        one_line = [text.replace("\n", " ") for text in texts]
        bleu = sacrebleu.corpus_bleu(one_line, [flat]).score
        chrf = sacrebleu.corpus_chrf(one_line, [flat]).score
        assert scores.values["bleu"] == bleu
        assert scores.values["chrf"] == chrf
        assert scores.selection == bleu / 100
    assert 50 < ours.values["bleu"] < 90
    assert 1 < copied.values["bleu"] < 15
    version = sacrebleu.__version__
    signatures = {
        "bleu": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}",
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}",
        "chrf_pp": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:{version}",
    }
    assert ours.signatures == signatures | {f"{k}_lines": v for k, v in signatures.items()}


PAIRS = pytest.mark.parametrize(
    ("pair", "documents", "copied"),
    [("en_is", 65, (1.95, 19.1)), ("is_en", 47, (1.52, 17.2))],
    ids=["en-is", "is-en"],
)


@pytest.fixture
def real(read_tell, pair) -> tuple[list[str], list[str]]:
    """Sources and references of a test file, as the configuration for it reads them."""
    read_tell(f"test-{pair.replace('_', '-')}.jsonl")
    task = check(["-c", str(CONFIGS / f"{pair}.yaml")]).data.tasks[pair]
    records = read_records(task.test, fields=task.fields, root=DATA.parent).records
    sources = [strip_anchor(record.prompt_turns[-1].content, task.anchor) for record in records]
    return sources, [reference_text(record, task.anchor) for record in records]


@pytest.fixture
def translated(predict, saved) -> Callable[[list[str], list[str]], dict[str, float]]:
    """Score answers that were saved and read again."""

    def values(answers: list[str], references: list[str]) -> dict[str, float]:
        scoring = Scoring(kind="translation")
        return score(scoring, saved(predict(answers, references), scoring)).values

    return values


@pytest.mark.long
@PAIRS
def test_real_references_have_100_at_every_level(documents, copied, real, translated):
    _, references = real
    assert len(references) == documents
    assert sum(len(text.split("\n")) for text in references) == 1000
    best = translated(references, references)
    assert best["line_mismatch_rate"] == 0
    assert [round(best[name], 9) for name in CORPUS] == [100] * 6


@pytest.mark.long
@PAIRS
def test_real_sources_copied_have_their_known_score_of_lines(documents, copied, real, translated):
    found = translated(*real)
    assert found["line_mismatch_rate"] == 0  # the files pair line by line
    assert (round(found["bleu_lines"], 2), round(found["chrf_lines"], 1)) == copied


@pytest.mark.long
@PAIRS
def test_real_lines_shuffled_over_the_file_have_none(documents, copied, real, translated):
    _, references = real
    lines = [line for text in references for line in text.split("\n")]
    np.random.default_rng(1).shuffle(lines)
    next_line = iter(lines)
    answers = ["\n".join(next(next_line) for _ in text.split("\n")) for text in references]
    shuffled = translated(answers, references)
    assert shuffled["line_mismatch_rate"] == 0
    assert shuffled["bleu_lines"] < 0.5
    # The control: as documents they are scored much the better for words that are in both.
    assert shuffled["bleu"] > 2 * shuffled["bleu_lines"]


@pytest.mark.long
def test_the_prefix_left_in_would_change_the_score(read_tell):
    rows = read_tell("test-en-is.jsonl")
    references = [strip_prefix(row["response"], PREFIX)[0] for row in rows]
    answers = [text[: len(text) // 2] for text in references]
    clean = corpus(answers, references)["bleu"]
    left_in = corpus([PREFIX + a for a in answers], [PREFIX + r for r in references])
    assert left_in["bleu"] > clean + 0.5


def test_a_perfect_corpus_has_100_and_an_empty_or_foreign_one_0():
    references = ["The cat sleeps on the mat.\nIt dreams.", "A dog barks at the moon tonight."]
    perfect = corpus(references, references)
    assert {name: round(value, 9) for name, value in perfect.items()} == dict.fromkeys(CORPUS, 100)
    for answers in (["", ""], ["####", "%%%%"]):
        assert list(corpus(answers, references).values()) == [0] * 6


def test_an_empty_answer_costs():
    references = ["The cat sleeps on the mat.", "A dog barks at the moon tonight."]
    half = corpus([references[0], ""], references)
    assert 0 < half["bleu"] < 60
    assert 0 < half["chrf"] < 60


def test_line_breaks_do_not_matter():
    reference = ["The cat sleeps well-\nfed on the mat.\r\n\r\n It dreams of milk. "]
    answer = ["The cat sleeps well- fed on the mat. It dreams\nof milk."]
    scores = {name: round(value, 9) for name, value in corpus(answer, reference).items()}
    assert [scores[name] for name in DOCUMENT] == [100] * 3
    # To lines they do: two of them are no pairs of three.
    assert line_mismatch_rate(answer, reference) == 1
    assert [scores[name] for name in LINES] == [0] * 3
    assert join_lines("\n \n") == ""


def test_line_scores_are_those_of_sacrebleu_on_the_pairs_of_lines():
    references = ["The cat sleeps on the mat.\n\nIt dreams of milk all day.", "A dog barks.\nLoud."]
    answers = ["The cat sleeps on a mat.\nIt dreams of milk all day. ", "A dog barks loud."]
    ours = ["The cat sleeps on a mat.", "It dreams of milk all day.", "", ""]
    theirs = ["The cat sleeps on the mat.", "It dreams of milk all day.", "A dog barks.", "Loud."]
    scores = corpus(answers, references, ter=True)
    assert line_mismatch_rate(answers, references) == 0.5
    assert scores["bleu_lines"] == sacrebleu.corpus_bleu(ours, [theirs]).score
    assert scores["chrf_lines"] == sacrebleu.corpus_chrf(ours, [theirs]).score
    plus = sacrebleu.corpus_chrf(ours, [theirs], word_order=2)
    assert scores["chrf_pp_lines"] == plus.score
    assert scores["chrf_pp"] != scores["chrf"]
    assert scores["ter_lines"] == sacrebleu.corpus_ter(ours, [theirs]).score


@pytest.mark.parametrize("lines", [False, True], ids=["documents", "lines"])
def test_scores_and_signatures_are_those_of_sacrebleu_s_command_line(lines, tmp_path):
    references = [f"The cat number {n} sleeps.\nIt dreams, says Jón, of milk." for n in range(8)]
    answers = [text.replace("sleeps", "sat on a mat").replace("of", "") for text in references]
    end, files = "\n" if lines else " ", []
    for name, texts in (("answers", answers), ("references", references)):
        files.append(tmp_path / name)
        files[-1].write_text("".join(text.replace("\n", end) + "\n" for text in texts), "utf-8")

    def command_line(*options: str) -> dict[str, tuple[float, str]]:
        command = [sys.executable, "-m", "sacrebleu", files[1], "-i", files[0], "-w", "9"]
        done = subprocess.run(
            [*command, "-m", *options], capture_output=True, check=True, text=True
        )
        found = json.loads(done.stdout)
        each = found if isinstance(found, list) else [found]
        return {one["name"]: (one["score"], one["signature"]) for one in each}

    theirs = command_line("bleu", "chrf", "ter") | command_line("chrf", "--chrf-word-order", "2")
    level = "_lines" if lines else ""
    found = {
        name: (each.whole()[name], signature)
        for each in corpus_sums(answers, references, ter=True)
        for name, signature in each.signatures.items()
    }
    keys = {"bleu": "BLEU", "chrf": "chrF2", "chrf_pp": "chrF2++"}
    for name, key in (keys | ({"ter": "TER"} if lines else {})).items():
        value, signature = found[name + level]
        assert (pytest.approx(value, abs=1e-8), signature) == theirs[key]
        assert 10 < value < 90


@pytest.mark.parametrize(
    ("answer", "edits"),
    [
        (lambda words: words, 0),
        (lambda words: [*words[:4], *words[5:]], 1),
        (lambda words: [*words[:3], "zebra", *words[4:]], 1),
        (lambda words: [*words[5:], *words[:5]], 1),  # a block that moved counts once
        (lambda words: [*words, *["zebra"] * 30], 30),
        (lambda _: [], 10),
    ],
)
def test_ter_counts_edits_over_the_reference_s_words(answer: Callable, edits: int):
    words = ["a", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "old", "dog"]
    found = corpus([" ".join(answer(words))], [" ".join(words)], ter=True)
    assert found["ter_lines"] == edits * 10


def test_ter_comes_with_the_intervals_and_its_signature(predict):
    texts = ["The cat sleeps on the mat.", "A dog barks at the moon tonight."]
    scoring = Scoring(kind="translation")
    predictions = predict(["The cat sleeps on a mat.", "A dog barks."], texts)
    cheap, dear = score(scoring, predictions), score(scoring, predictions, intervals=True)
    assert dear.values.keys() - cheap.values.keys() == {"ter_lines"}
    assert cheap.values.items() <= dear.values.items()
    assert dear.signatures["ter_lines"].startswith("nrefs:1|case:lc|tok:tercom|")
    assert cheap.signatures.items() <= dear.signatures.items()
    low, high = dear.intervals["ter_lines"]
    assert 0 < low <= dear.values["ter_lines"] <= high < 100
