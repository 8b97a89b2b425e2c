import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from tell_lightning.metrics.kinds.registry import kind_of
from tell_lightning.metrics.score import score
from tell_lightning.metrics.settings import Scoring

texts = st.sampled_from(["a", "a\n", " a", "A", "b", "a b"])


@settings(max_examples=30)
@given(st.lists(st.tuples(texts | st.just(""), texts), min_size=1))
def test_exact_match_is_that_of_scikit_learn_but_for_outer_white_space(predict, pairs):
    answers, references = zip(*pairs, strict=True)
    bare = [[text.strip() for text in column] for column in (answers, references)]
    found = score(Scoring(), predict(answers, references)).values["exact_match"]
    assert found == pytest.approx(accuracy_score(*bare))


def test_white_space_inside_and_case_count(predict):
    predictions = predict([" a b", "a  b", "", "A b"], ["a b\n", "a b", "a b", "a b"])
    assert score(Scoring(), predictions).values["exact_match"] == 0.25


def test_one_answer_is_exact_or_nothing_can_be_said():
    kind = kind_of(Scoring())
    reference = kind.read("a b")
    assert [kind.verdict(kind.read(each), reference) for each in (" a b\n", "b")] == ["exact", ""]
    assert kind.columns("a ", "a") == {"exact_match": True}
    assert kind.saved("a") == {}
