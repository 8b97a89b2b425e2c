import sacrebleu

from tell_lightning.metrics.predictions import strip_prefix
from tell_lightning.metrics.score import floors, score
from tell_lightning.metrics.settings import Floor, Scoring
from tell_lightning.metrics.translation import corpus_scores, join_lines

PREFIX = "Sure, here is the Icelandic translation: \n\n "


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
    scoring = Scoring(kind="translation", floors={"copy": Floor(field="source")})
    ours = score(scoring, predictions)
    copied = floors(scoring, predictions)["copy"]

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
    assert ours.signatures == {
        "bleu": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}",
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}",
    }


def test_the_prefix_left_in_would_change_the_score(read_tell):
    rows = read_tell("test-en-is.jsonl")
    references = [strip_prefix(row["response"], PREFIX)[0] for row in rows]
    answers = [text[: len(text) // 2] for text in references]
    clean = corpus_scores(answers, references)["bleu"].score
    left_in = corpus_scores([PREFIX + a for a in answers], [PREFIX + r for r in references])
    assert left_in["bleu"].score > clean + 0.5


def test_a_perfect_corpus_has_100_and_an_empty_or_foreign_one_0():
    references = ["The cat sleeps on the mat.\nIt dreams.", "A dog barks at the moon tonight."]
    assert {
        name: round(c.score, 9) for name, c in corpus_scores(references, references).items()
    } == {
        "bleu": 100,
        "chrf": 100,
    }
    for answers in (["", ""], ["####", "%%%%"]):
        assert [c.score for c in corpus_scores(answers, references).values()] == [0, 0]


def test_an_empty_answer_costs():
    references = ["The cat sleeps on the mat.", "A dog barks at the moon tonight."]
    half = corpus_scores([references[0], ""], references)
    assert 0 < half["bleu"].score < 60
    assert 0 < half["chrf"].score < 60


def test_line_breaks_do_not_matter():
    reference = ["The cat sleeps well-\nfed on the mat.\r\n\r\n It dreams of milk. "]
    answer = ["The cat sleeps well- fed on the mat. It dreams\nof milk."]
    assert [round(c.score, 9) for c in corpus_scores(answer, reference).values()] == [100, 100]
    assert join_lines("\n \n") == ""
