"""BLEU, words and equality in scripts without spaces, and in composed and decomposed characters."""

import json
import unicodedata

import pytest
import sacrebleu
from messages import says

from tell_lightning.cli import main
from tell_lightning.experiment.items import bleu, items
from tell_lightning.metrics.kinds import translation
from tell_lightning.metrics.kinds.registry import kind_of
from tell_lightning.metrics.predictions import MetricError
from tell_lightning.metrics.score import row_sums, score
from tell_lightning.metrics.settings import Scoring

CHINESE = ["他昨天坐火车去了上海。", "图书馆星期天不开门。", "请把窗户关上。外面很冷。"]
NEARLY = ["他昨天坐飞机去了上海。", "图书馆星期六不开门。", "请把窗户关上。外面很冷。"]
NONSENSE = ["苹果苹果苹果。", "红绿蓝黄白黑。", "一二三四五六七八九十。"]
JAPANESE = ["昨日は電車で大阪に行きました。", "図書館は日曜日に開いていません。"]
THAI = ["เมื่อวานเขานั่งรถไฟไปเชียงใหม่", "ห้องสมุดไม่เปิดวันอาทิตย์"]
TRANSLATION = Scoring(kind="translation")


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def tokenizer(references: list[str]) -> str:
    return kind_of(TRANSLATION).settled(references).tokenize


def test_chinese_answers_have_the_bleu_of_sacrebleus_zh_and_its_signature(predict):
    scores = score(TRANSLATION, predict(NEARLY, CHINESE), intervals=True)
    expected = sacrebleu.corpus_bleu(NEARLY, [CHINESE], tokenize="zh").score
    assert scores.values["bleu"] == pytest.approx(expected, abs=1e-9)
    assert 60 < expected < 95
    assert "|tok:zh|" in scores.signatures["bleu"]
    assert scores.intervals["bleu"][0] < expected < scores.intervals["bleu"][1] + 1e-9
    assert score(TRANSLATION, predict(CHINESE, CHINESE)).values["bleu"] == pytest.approx(100)
    assert score(TRANSLATION, predict(NONSENSE, CHINESE)).values["bleu"] < 10
    assert 0 < scores.values["ter_lines"] < 50


@pytest.mark.parametrize(
    ("references", "expected"),
    [
        (CHINESE, "zh"),
        (["用 TensorFlow 训练一个小模型。", "把结果写进 results.json。"], "zh"),
        (JAPANESE, "char"),
        (THAI, "char"),
        (["Ég fór til Reykjavíkur í gær.", "Bókasafnið er lokað."], "13a"),
        (["The capital is Beijing (北京).", "He lives in Kyoto (京都)."], "13a"),
        (["도서관은 일요일에 문을 열지 않는다."], "13a"),
        (["...", "42"], "13a"),
    ],
)
def test_the_tokenizer_follows_from_the_script_of_the_references(references, expected):
    assert tokenizer(references) == expected


def test_a_tokenizer_that_is_set_is_taken_for_all_scores_of_bleu(predict):
    by_character = Scoring(kind="translation", tokenize="char")
    found = score(by_character, predict(NEARLY, CHINESE))
    assert "|tok:char|" in found.signatures["bleu"]
    assert "|tok:char|" in found.signatures["bleu_lines"]


def test_13a_for_texts_without_spaces_is_warned_of():
    asked = kind_of(Scoring(kind="translation", tokenize="13a"))
    (note,) = asked.notes(CHINESE)
    assert note.startswith("scoring.tokenize: 13a")
    assert not list(asked.notes(["Two words.", "Three more words."]))
    assert not list(kind_of(TRANSLATION).notes(CHINESE))


def test_a_tokenizer_without_its_package_is_refused_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(translation, "find_spec", lambda name: None)
    with pytest.raises(MetricError) as error:
        kind_of(Scoring(kind="translation", tokenize="ja-mecab"))
    assert str(error.value) == says(
        "scoring.tokenize", rule="needs the package", got="none", cure="pip install"
    )


def test_a_tokenizer_that_cannot_be_loaded_is_one_error(monkeypatch, predict):
    monkeypatch.setattr(translation, "find_spec", lambda name: True)
    with pytest.raises(MetricError) as error:
        score(Scoring(kind="translation", tokenize="ja-mecab"), predict(JAPANESE, JAPANESE))
    assert str(error.value) == says(
        "scoring.tokenize", rule="must be loaded", got="RuntimeError", cure="scoring.tokenize: auto"
    )


def test_rows_of_an_experiment_count_chinese_words(predict):
    lines = [
        {"id": p.id, "prediction": p.prediction, "reference": p.reference}
        for p in predict(NEARLY, CHINESE)
    ]
    rows = items("bleu", lines, TRANSLATION)["rows"]
    (whole,) = (
        g.whole()["bleu"]
        for g in row_sums(TRANSLATION, predict(NEARLY, CHINESE))
        if "bleu" in g.whole()
    )
    assert float(bleu([sum(column) for column in zip(*rows, strict=True)])) == pytest.approx(whole)


def test_compare_tells_good_chinese_answers_from_nonsense_outside_a_run(tmp_path, capsys):
    paths = []
    for name, answers in (("nonsense", NONSENSE), ("good", CHINESE)):
        paths.append(tmp_path / f"{name}.jsonl")
        rows = zip(answers, CHINESE, strict=True)
        lines = [{"id": str(i), "prediction": a, "reference": r} for i, (a, r) in enumerate(rows)]
        paths[-1].write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    main(["compare", *map(str, paths), "--kind", "translation", "--format", "jsonl"])
    found = {line["score"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["bleu"]["a"] < 10
    assert found["bleu"]["b"] == pytest.approx(100)
    assert "|tok:zh|" in found["bleu"]["signature"]


@pytest.mark.parametrize(
    ("answer", "words", "found"),
    [
        ("我明天去北京看长城。", ["北京", "长城"], 2),
        ("彼は東京で寿司を食べた。", ["東京", "寿司", "京都"], 2),
        ("我们用Python写程序。", ["python"], 1),
        ("เขาไปเชียงใหม่", ["เชียงใหม่"], 1),
        ("The cattle ate.", ["cat"], 0),
        ("北京北京", ["北京", "北京", "北京"], 2),
        (decomposed("Un café très fort."), ["Café", "très"], 2),
        ("Un café très fort.", [decomposed("café")], 1),
    ],
)
def test_listed_words_are_found_in_every_script(answer, words, found, predict):
    scoring = Scoring(kind="text", words_field="words")
    values = score(scoring, predict([answer], ["x"], [{"words": words}])).values
    assert values["words_recall"] == pytest.approx(found / len(words))


@pytest.mark.parametrize("turned", [False, True])
def test_composed_and_decomposed_characters_are_the_same(turned, predict):
    texts = ["Les élèves étaient fatigués après l'été.", "Ça coûte très cher à Noël, en général."]
    pairs = (texts, [decomposed(text) for text in texts])
    ours, theirs = pairs[::-1] if turned else pairs
    found = score(TRANSLATION, predict(ours, theirs)).values
    assert found["bleu"] == pytest.approx(100)
    assert found["chrf"] == pytest.approx(100)
    assert found["exact_match"] == 1
    labels = Scoring(kind="classification", labels=("élevé", decomposed("modéré")))
    labelled = score(labels, predict([decomposed("élevé"), "modéré"], ["élevé", "modéré"])).values
    assert labelled["accuracy"] == 1
    slots = [json.dumps({"ville": "Orléans"}, ensure_ascii=False)]
    found = score(Scoring(kind="json"), predict(slots, [decomposed(slots[0])])).values
    assert found["json_match"] == 1
