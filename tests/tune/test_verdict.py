"""The verdict: nothing from noise, what is there is found, and one sentence says what to use."""

import re
from dataclasses import replace

import pytest
from simulated_search import SCORINGS, Learned, Simulated, folds_of, parts_of

from tell_lightning.commands.tune import arm_rows
from tell_lightning.tuning.estimate import Estimate
from tell_lightning.tuning.ground import Ground, choose
from tell_lightning.tuning.scores import row_values
from tell_lightning.tuning.sentence import advice, decide, sentence_of
from tell_lightning.tuning.verdict import _difference, _numbered, _Table

SEEN = Estimate(6.1, 2.0, 10.4, 0.01, rows=50, seeds=4, of_rows=3.0, of_runs=1.0, runs_freedom=12)
UNEQUAL = {"tell": 24, "sft": 1}
"""Many candidates of one arm and one of the other: luck alone would favour the first."""


def claims(studies: int, of=Simulated, **given) -> int:
    """Count the studies whose verdict is for one of two arms that are alike."""
    found = [of(seed, trials=UNEQUAL, **given).verdict() for seed in range(studies)]
    return sum(each["outcome"] in {"tell", "sft"} for each in found)


def naive_claims(studies: int, **given) -> int:
    """Count them where the rows that chose are scored again, and the scores of the search taken."""
    count = 0
    for seed in range(studies):
        found = Simulated(seed, trials=UNEQUAL, **given)
        records = found.records()
        tables = []
        for arm in ("tell", "sft"):
            best = max((r for r in records if r["arm"] == arm), key=lambda r: r["score"])
            rows = [row for fold in best["folds"] for row in fold["rows"]]
            names = [row["id"].split(":")[0] for row in rows]
            values = row_values(SCORINGS, rows)
            tables.append(_Table(values.reshape(1, -1).repeat(2, axis=0), names))
        count += _difference(*tables).p <= 0.05
    return count


def test_noise_gives_no_verdict_for_either_arm_with_five_seeds():
    for seed in range(5):
        outcome = Simulated(seed, trials={"tell": 8, "sft": 8}, taste=1.0).verdict()["outcome"]
        assert outcome not in {"tell", "sft"}


@pytest.mark.long
def test_noise_seldom_gives_a_verdict_but_choosing_and_estimating_by_the_same_rows_often_does():
    assert claims(60) <= 6  # 1 of 20, and what chance adds
    assert naive_claims(60) > 10


@pytest.mark.long
def test_nor_does_it_with_the_parts_of_a_dev_set():
    assert claims(40, folds=parts_of(40, 5)) <= 4


@pytest.mark.long
def test_nor_do_learners_on_noise_labels_whose_search_has_seen_all_folds():
    assert claims(60, of=Learned) <= 6


@pytest.mark.parametrize("has_test", [False, True])
def test_a_real_difference_is_found_and_named(has_test):
    found = Simulated(3, rows=100, gain={"tell": 2.5}, folds=folds_of(100, 5)).verdict(
        has_test=has_test, seeds=4
    )
    assert found["outcome"] == "tell"
    assert re.fullmatch(
        r"TELL: \+\d+\.\d \[\d+\.\d, \d+\.\d\] exact match over SFT", found["sentence"]
    )
    other = Simulated(3, rows=100, gain={"sft": 2.5}, folds=folds_of(100, 5)).verdict(
        has_test=has_test, seeds=4
    )
    assert other["sentence"].startswith("SFT: +")


def test_the_choice_for_a_fold_does_not_look_at_its_rows():
    simulated = Simulated(0)
    ground = Ground(SCORINGS, simulated.folds, False)
    records = [r for r in simulated.records() if r["arm"] == "tell"]
    for part in ground.parts:
        before = choose(ground, records, part)["number"]
        for record in records:  # whatever the answers to these rows are
            for row in record["folds"][part]["rows"]:
                row["prediction"] = "y" if record["number"] != before else "n"
        assert choose(ground, records, part)["number"] == before


def test_the_choice_for_a_part_of_the_dev_set_does_not_look_at_its_rows():
    simulated = Simulated(0, folds=parts_of(40, 5))
    ground = Ground(SCORINGS, simulated.folds, False)
    records = [r for r in simulated.records() if r["arm"] == "tell"]
    before = choose(ground, records, 2)["number"]
    for record in records:
        for row in record["folds"][0]["rows"]:
            if int(row["id"].rpartition(":")[2]) % 5 == 2:
                row["prediction"] = "y" if record["number"] != before else "n"
    assert choose(ground, records, 2)["number"] == before
    assert choose(ground, records, None)["number"] != before


def test_equal_scores_are_decided_by_the_loss_of_the_other_folds():
    simulated = Simulated(0, trials={"tell": 2})
    one, other = simulated.records()
    for record, losses in ((one, (1.0, 3.0)), (other, (9.0, 2.0))):
        for fold in record["folds"]:
            fold["loss"] = losses[0] if fold["fold"] == 0 else losses[1]
            for row in fold["rows"]:
                row["prediction"] = "y"
    ground = Ground(SCORINGS, simulated.folds, False)
    assert choose(ground, [one, other], 0)["number"] == 1
    assert choose(ground, [one, other], 1)["number"] == 0


@pytest.mark.parametrize(
    ("wrong", "lower", "other_arm", "chosen"),
    [
        (({0, 1}, {5}), 0.0, "sft", 0),  # better by luck
        (({0, 1, 2, 3}, set()), 0.0, "sft", 1),
        (({0, 1, 2, 3}, set()), -1.0, "sft", 1),  # the score comes first
        (({0, 1}, {0, 1}), 1.0, "sft", 1),  # equal, with the lower loss
        (({0, 1}, {5}), 1.0, "sft", 1),  # ahead by little, with the lower loss
        (({0, 1}, {0, 1}), 0.1, "sft", 0),  # a loss that is lower by luck
        (({0, 1}, {5}), 1.0, "mixture", 0),  # the loss of other tokens
        ((set(), {0}), 1.0, "sft", 0),
    ],
)
def test_another_trial_than_the_default_is_chosen_if_it_is_better_by_more_than_luck(
    wrong, lower, other_arm, chosen
):
    simulated = Simulated(0, rows=10, trials={"tell": 1, other_arm: 1}, folds=folds_of(10, 5))
    one, other = simulated.records()
    for record, mistakes, loss in zip((one, other), wrong, (2.0, 2.0 - lower), strict=True):
        for number, fold in enumerate(record["folds"]):
            fold["loss"] = loss + (0.5 * (number - 2) if record is other and lower == 0.1 else 0.0)
        for number, row in enumerate(row for fold in record["folds"] for row in fold["rows"]):
            row["prediction"] = "yn"[number in mistakes]
    assert choose(Ground(SCORINGS, simulated.folds, False), [one, other], None)["number"] == chosen


def test_arms_are_trained_anew_with_the_same_seeds_which_the_search_had_not():
    simulated = Simulated(1)
    found = simulated.verdict(seeds=2)
    trained = [each for each in simulated.asked if each.kind == "adapter"]
    seeds = {arm: [(each.fold, each.seed) for each in trained if each.name.startswith(arm)]
             for arm in ("tell", "sft")}  # fmt: skip
    assert seeds["tell"] == seeds["sft"]
    assert len(set(seeds["tell"])) == 10  # two of each fold, each with a seed of its own
    assert 0 not in {each.seed for each in trained}
    assert found["rows"] == 40
    assert [each.before for each in trained].count(True) == 1


def test_with_test_rows_one_choice_of_each_arm_is_trained_on_all_rows():
    simulated = Simulated(1)
    found = simulated.verdict(has_test=True, seeds=3)
    trained = [each for each in simulated.asked if each.kind == "adapter"]
    assert {each.fold for each in trained} == {None}
    assert len(trained) == 6
    assert found["on"] == "test rows, which chose nothing"
    best = {arm: max((r for r in simulated.records() if r["arm"] == arm),
                     key=lambda r: (r["score"], -r["number"]))["number"]
            for arm in ("tell", "sft")}  # fmt: skip
    assert {each["name"]: each["trials"] for each in found["arms"]} == {
        arm: [number] for arm, number in best.items()
    }


def test_one_training_answers_all_parts_of_a_dev_set_for_which_it_is_the_choice():
    simulated = Simulated(1, folds=parts_of(40, 5), taste=4.0)
    simulated.verdict(seeds=2)
    trained = [each.name for each in simulated.asked if each.kind == "adapter"]
    assert len(trained) == len(set(trained))
    assert len(trained) < 2 * 2 * 5


def test_time_decides_how_many_seeds_there_are():
    simulated = Simulated(2)
    left = iter([500.0, 300.0, 250.0, 120.0, 10.0])  # a round is expected to take 100 s
    found = simulated.verdict(seconds_left=lambda: next(left), seeds=9)
    assert found["seeds"] == 4
    short = Simulated(2).verdict(seconds_left=lambda: 199.0, seeds=9)
    assert short["seeds"] == 0
    assert short["difference"] is None
    assert short["sentence"].startswith("undecided: the budget is too small for 2 seeds")
    assert "about 3 minutes" in short["sentence"]


def test_the_arms_come_before_the_rivals_and_these_before_further_seeds():
    simulated = Simulated(2)
    simulated.verdict(seeds=3)
    kinds = [each.kind for each in simulated.asked]
    assert kinds == ["adapter"] * 2 * 2 * 5 + ["base"] * 5 + ["few_shot"] * 5 + ["adapter"] * 2 * 5
    left = iter([500.0, -1.0, -1.0])
    late = Simulated(2).verdict(seconds_left=lambda: next(left), seeds=9)
    assert late["seeds"] == 2
    assert {each["reason"] for each in late["rivals"]} == {"no time was left"}


def test_scoring_the_test_rows_counts_in_the_time_of_a_seed():
    def seeds(**given):
        found = Simulated(2).verdict(has_test=True, seconds_left=lambda: 50.0, seeds=2, **given)
        return found["seeds"]

    assert (seeds(), seeds(test_scoring=15.0)) == (2, 0)  # a round takes 20 s, 50 s with it


def test_what_failed_is_left_out_for_all_arms_and_said():
    found = Simulated(2, failing="seed6").verdict(seeds=3)
    assert found["seeds"] == 2
    assert found["missing_seeds"] == ["MetricError: no"]
    lost = Simulated(2, failing="sft").verdict(seeds=3)
    assert lost["sentence"] == "undecided: trainings failed: MetricError: no"
    assert Simulated(2, trials={"tell": 4}).verdict()["sentence"] == (
        "undecided: no trial of SFT was completed"
    )
    rival = Simulated(2, failing="few-shot").verdict()["rivals"][1]
    assert (rival["score"], rival["reason"]) == (None, "MetricError: no")


def test_one_test_row_and_answers_that_cannot_be_scored_again_end_no_search(monkeypatch):
    lone = Simulated(2, rows=1, folds=folds_of(1, 1)).verdict(has_test=True)
    assert lone["sentence"] == "undecided: one row cannot tell two arms apart; add rows"
    broken = Simulated(2)
    kept = broken.records

    def without_references():
        records = kept()
        for fold in records[0]["folds"]:
            for row in fold["rows"]:
                row["reference"] = None
        return records

    monkeypatch.setattr(broken, "records", without_references)
    found = broken.verdict()
    assert found["sentence"].startswith("undecided: the answers that are kept cannot be scored")
    assert broken.asked == []  # nothing was trained for it


def test_arms_and_rivals_have_score_loss_and_price():
    found = Simulated(2, trials={"tell": 3, "sft": 3, "mixture": 3}).verdict()
    assert [each["name"] for each in found["arms"]] == ["tell", "sft", "mixture"]
    tell, sft, mixture = found["arms"]
    assert tell["over_sft"] == found["difference"]
    assert mixture["over_sft"] is not None
    assert sft["over_sft"] is None
    assert (tell["tokens"], sft["tokens"]) == (500, 100)
    assert tell["general_loss"] == {"before": 1.0, "after": 1.1}
    for each in (*found["arms"], *found["rivals"]):
        assert 0 <= each["score"]["low"] <= each["score"]["value"] <= each["score"]["high"] <= 100


def test_the_screen_has_a_row_for_each_arm_and_rival():
    rows = arm_rows(Simulated(3, gain={"tell": 2.5}).verdict(seeds=2))
    assert rows[0] == ["", "exact match", "over SFT", "loss", "general loss", "minutes"]
    names = ["TELL", "SFT", "base with the anchor", "few-shot prompt"]
    assert [row[0] for row in rows[1:]] == names
    assert re.fullmatch(r"\+\d+\.\d \[-?\d+\.\d, \d+\.\d\]", rows[1][2])
    assert rows[2][2] == ""
    assert all(row[1] for row in rows[1:])


def test_the_sentence_has_three_forms():
    costs = {"tell": 3.0, "sft": 1.0}
    assert sentence_of(SEEN, "accuracy", costs, 60) == "TELL: +6.1 [2.0, 10.4] accuracy over SFT"
    turned = replace(SEEN, value=-6.1, low=-10.4, high=-2.0)
    assert sentence_of(turned, "accuracy", costs, 60) == "SFT: +6.1 [2.0, 10.4] accuracy over TELL"
    near = replace(SEEN, value=1.0, low=-2.0, high=4.0, p=0.4)
    assert sentence_of(near, "BLEU", costs, 60) == (
        "no difference seen; SFT is cheaper (TELL +1.0 [\N{MINUS SIGN}2.0, 4.0] BLEU over SFT)"
    )
    wide = Estimate(1.0, -7.0, 9.0, 0.7, 50, 2, of_rows=0.4, of_runs=5.0, runs_freedom=5)
    assert re.fullmatch(
        r"undecided: the interval is ±8\.0; about .* more would halve it "
        r"\(TELL \+1\.0 \[-7\.0, 9\.0\] BLEU over SFT\)",
        sentence_of(wide, "BLEU", costs, 3600).replace("\N{MINUS SIGN}", "-"),
    )


def test_a_difference_within_the_margin_is_named_where_it_is_sure():
    small = replace(SEEN, value=1.5, low=0.5, high=2.5, p=0.01)
    assert decide(small) == "tell"
    assert decide(replace(small, p=0.06)) == "no difference"


def test_more_time_is_advised_where_seeds_are_what_is_missing_and_else_more_rows():
    by_runs = Estimate(0, -20, 20, 1, 200, 3, of_rows=1.0, of_runs=80.0, runs_freedom=10)
    assert advice(by_runs, 600).endswith("more would halve it")
    by_rows = Estimate(0, -20, 20, 1, 10, 3, of_rows=78.0, of_runs=0.5, runs_freedom=10)
    told = re.fullmatch(
        r"more time cannot halve it, but about (\d+) rows would", advice(by_rows, 600)
    )
    assert told
    assert 20 <= int(told[1]) <= 45  # four times as many, fewer as the t quantile falls


def test_rows_of_one_training_are_one_run():
    assert _numbered(["b", "a", "b"]).tolist() == [0, 1, 0]
