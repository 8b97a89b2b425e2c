"""Verdicts on results that were never run: a known effect is found, none is not, gaps are named."""

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from messages import says
from small_experiments import FOLDERS, write_experiments

from tell_lightning.experiment import statistics
from tell_lightning.experiment.cells import Cell, expand
from tell_lightning.experiment.contrasts import DECLARED_N, FAMILY, contrasts, factorial
from tell_lightning.experiment.evidence import (
    curve,
    data_equivalence,
    losses,
    samples,
    sizes,
)
from tell_lightning.experiment.forms import SpecificationError
from tell_lightning.experiment.results import Result, read_results, write_result
from tell_lightning.experiment.rules import Verdict, overall, verdicts
from tell_lightning.experiment.specification import (
    Arm,
    Experiment,
    Group,
    Testbed,
    read_experiment,
    rule_digests,
)
from tell_lightning.experiment.statistics import Samples, StatisticsError
from tell_lightning.report.experiments.contents import read_experiments

ROWS = 100
TESTBEDS = ("translate", "judge", "compose")
ARMS = {
    name: Arm(name, label, None, {"data.mixture.arm": name})
    for name, label in {
        "tell": "TELL",
        "sft": "SFT",
        "sft_equal_steps": "SFT at TELL's steps",
        "general_only": "General only",
        "mix_without_anchor": "Mix without anchor",
        "general_then_task": "General then task",
        "arbitrary_anchor": "Arbitrary anchor",
        "sft_without_anchor": "SFT without anchor",
        "base": "Base",
    }.items()
}
SIZES = (3, 10, 30, 100, 300, 1000)
AMOUNTS = ("general_30", "general_300", "general_3000")
RULES: dict[str, dict[str, Any]] = {
    "activation": {"n": 10, "chance_margin": 5, "activation_margin": 20, "equivalence": 1.0},
    "same_data": {"n": list(SIZES), "at_least": 3, "equivalence": 1.0},
    "tenfold": {"n": 10, "reproduced_from": 5, "refuted_below": 3},
    "ten_examples": {"n": 10, "equivalence": 1.0},
    "anchor": {"n": 10, "against": "mix_without_anchor", "equivalence": 1.0},
    "shuffle": {"n": 10, "against": "general_then_task", "equivalence": 1.0},
    "contrast": {"n": 10, "against": "general_then_task", "equivalence": 1.0},
    "amount": {"arm": "tell", "variants": list(AMOUNTS), "equivalence": 1.0},
}
Score = Callable[[Cell], float]


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> Iterator[None]:
    """Draw a tenth of what a report draws: known effects are large, and minutes are saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "DRAWS", 2000)
        yield


def experiment(kind: str, seeds: int = 10, testbeds=TESTBEDS, **changes: Any) -> Experiment:
    """A claim whose cells are all that any rule needs, in memory."""
    arms = tuple(ARMS)
    every = tuple(range(seeds))
    return Experiment(
        folder=Path("experiments/claim"),
        title="A claim",
        claim="TELL is better.",
        refuted_by="It is not.",
        rule={"kind": kind, **RULES.get(kind, {}), **changes},
        uses=(),
        groups=(
            Group(testbeds, arms, (10,), every),
            Group(testbeds, ("tell", "sft"), SIZES, every),
            Group(testbeds, ("tell",), (10,), every, variants={name: {} for name in AMOUNTS}),
        ),
        testbeds={name: Testbed(name, name, name, "exact_match", 0, {}) for name in TESTBEDS},
        arms=ARMS,
        base={},
        bases={},
    )


def result(claim: Experiment, cell: Cell, score: float, loss: float, luck: int = 0) -> Result:
    """A result whose rows are right at random, as many of 100 as the score says and some noise."""
    random = np.random.default_rng([zlib.crc32(cell.name.encode()), luck])
    if cell.arm == "base":
        random = np.random.default_rng(luck)  # trains nothing: the same with every seed
    wanted = score / 100 + random.normal(scale=0.02)
    right = (random.random(ROWS) < wanted).astype(int)
    items = {"statistic": "exact_match", "rows": [[int(hit), 1] for hit in right]}
    off = {"statistic": "exact_match", "rows": [[0, 1]] * ROWS}
    return {
        "name": cell.name,
        "cell": cell.facts,
        "status": "completed",
        "reason": None,
        "rule_digest": claim.rule_digest,
        "rules": {claim.name: claim.rule_digest},
        "config_digest": "0" * 12,
        "seconds": 2.0,
        "test": {"values": {}, "loss": loss + random.normal(scale=0.02), "items": items},
        "test_anchor_off": {"values": {}, "loss": 2.0, "items": off},
        "tokens": {"task": 100 * cell.n, "general": 50_000 if cell.arm == "tell" else 0},
    }


def results(claim: Experiment, score: Score, luck: int = 0) -> dict[str, Result]:
    return {
        cell.name: result(claim, cell, score(cell), 2 - score(cell) / 100, luck)
        for cell in expand(claim)
    }


def rising(n: float) -> float:
    """A learning curve: 0 at few examples, 90 at many, half of that at 100."""
    return 90 / (1 + (100 / max(n, 1)) ** 2)


def effect(cell: Cell) -> float:
    """TELL gets of n what SFT gets of twelve times n and more; each other arm gets less."""
    if cell.variant is not None:
        return 20.0 + 25 * AMOUNTS.index(cell.variant)
    return {
        "tell": rising(12 * cell.n),
        "sft": rising(cell.n),
        "mix_without_anchor": 30.0,
        "general_then_task": 25.0,
        "sft_equal_steps": rising(cell.n),
        "general_only": 10.0,
        "arbitrary_anchor": 20.0,
        "base": 0.0,
    }.get(cell.arm, 5.0)


def no_effect(cell: Cell) -> float:
    """Every arm is as SFT is, and that rises with n."""
    return 30 + rising(cell.n) / 2


def harm(cell: Cell) -> float:
    """TELL is worse than anything, and the worse the more general data it has."""
    if cell.variant is not None:
        return 70.0 - 25 * AMOUNTS.index(cell.variant)
    return 5.0 if cell.arm == "tell" else 40 + rising(cell.n) / 2


def by_testbed(found: list[Verdict]) -> dict[str | None, str]:
    return {verdict.testbed: verdict.verdict for verdict in found}


@pytest.mark.parametrize("kind", RULES)
def test_a_known_effect_is_reproduced(kind):
    claim = experiment(kind, testbeds=TESTBEDS[:2])
    found = verdicts(claim, results(claim, effect))
    assert by_testbed(found) == dict.fromkeys([*TESTBEDS[:2], None], "reproduced"), found


@pytest.mark.parametrize("kind", RULES)
def test_harm_is_refuted(kind):
    claim = experiment(kind, testbeds=TESTBEDS[:2])
    found = verdicts(claim, results(claim, harm))
    assert by_testbed(found) == dict.fromkeys([*TESTBEDS[:2], None], "refuted"), found


@pytest.mark.parametrize("kind", RULES)
def test_where_there_is_no_effect_nothing_is_reproduced(kind):
    claim = experiment(kind, testbeds=("compose",))
    for luck in range(3):
        found = verdicts(claim, results(claim, no_effect, luck))
        assert "reproduced" not in by_testbed(found).values(), found


def test_a_difference_of_noise_is_rarely_called_one():
    claim = experiment("anchor")
    arms = ("tell", "mix_without_anchor")
    claim = dataclasses.replace(claim, groups=(Group(("compose",), arms, (10,), (*range(10),)),))
    called = [verdicts(claim, results(claim, no_effect, luck))[0].verdict for luck in range(40)]
    assert called.count("reproduced") <= 2
    assert called.count("undecided") > 20  # the interval is wider than one point


def test_reasons_are_one_sentence_with_the_numbers():
    claim = experiment("anchor", testbeds=("compose",))
    found, whole = verdicts(claim, results(claim, effect))
    assert found.finding is not None
    (row,) = found.finding.contrasts
    at = row.estimate
    assert found.reason == (
        f"TELL - Mix without anchor +{at.value:.1f} [{at.low:.1f}, {at.high:.1f}] points, "
        "p 0.012 after Holm"
    )
    assert row.p_value == 2 / 1024
    assert row.p_holm == 6 * row.p_value
    assert whole.reason == "reproduced on compose"
    assert whole.verdict == "undecided"  # one testbed is not two


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("activation", ("SFT ", "(at chance: up to 5)", "(activated: from 20)", "TELL - General")),
        ("same_data", ("better than SFT at 5 of 6 sizes", "n = 3: +", "after Holm")),
        ("tenfold", ("of 10 examples SFT needs ", "times the examples and ", "refuted below 3")),
        ("ten_examples", ("TELL - Base +", "; TELL - General only +")),
        ("amount", ("from general_30 to general_3000", "nats", "0 of 4 steps")),
    ],
)
def test_each_kind_names_its_thresholds_and_numbers(kind, parts):
    claim = experiment(kind, testbeds=("compose",))
    reason = verdicts(claim, results(claim, effect))[0].reason
    for part in parts:
        assert part in reason, reason


def test_five_seeds_are_enough_at_the_sizes_beside_the_declared_one():
    claim = experiment("same_data", testbeds=("compose",))
    groups = (
        Group(("compose",), ("tell", "sft"), (10,), tuple(range(10))),
        Group(("compose",), ("tell", "sft"), SIZES, tuple(range(5))),
    )
    claim = dataclasses.replace(claim, groups=groups)
    found = verdicts(claim, results(claim, effect))[0]
    assert (found.verdict, found.exploratory) == ("reproduced", False)
    assert found.reason.count("p 0.062;") == 4  # cannot be less
    assert found.reason.count("after Holm") == 1


def test_five_seeds_are_enough_where_the_interval_alone_decides():
    claim = experiment("contrast", seeds=5)
    found = verdicts(claim, results(claim, effect))
    assert [each.verdict for each in found] == ["reproduced"] * 4
    (row,) = found[0].finding.contrasts
    assert (row.p_value, row.p_holm) == (0.0625, None)


def test_where_sft_learns_the_task_there_is_nothing_to_activate():
    claim = experiment("activation", testbeds=("compose",))
    learned = results(claim, lambda cell: 30.0 if cell.arm == "sft" else effect(cell))
    found = verdicts(claim, learned)[0]
    assert found.verdict == "undecided"
    assert "so SFT itself learns the task" in found.reason


def test_a_score_that_rises_while_the_loss_does_not_is_no_reproduction():
    claim = experiment("amount", testbeds=("compose",))
    found = results(claim, effect)
    flat = {
        name: {**each, "test": {**each["test"], "loss": 1.0 + each["cell"]["seed"] / 100}}
        for name, each in found.items()
    }
    assert verdicts(claim, found)[0].verdict == "reproduced"
    assert verdicts(claim, flat)[0].verdict == "undecided"


def test_one_step_that_falls_is_no_monotone_rise():
    claim = experiment("amount", testbeds=("compose",))
    scores = dict(zip(AMOUNTS, (20, 80, 50), strict=True))
    found = results(claim, lambda cell: scores.get(cell.variant or "", 5))
    assert verdicts(claim, found)[0].verdict == "undecided"


def test_fewer_than_five_seeds_explore():
    claim = experiment("anchor", seeds=4)
    found = verdicts(claim, results(claim, effect))
    assert by_testbed(found) == dict.fromkeys([*TESTBEDS, None], "undecided")
    assert all(each.exploratory for each in found)
    assert found[0].reason.startswith("exploratory, 4 seeds: TELL - Mix without anchor +")


def test_a_base_of_one_seed_is_enough():
    claim = experiment("ten_examples", testbeds=("compose",))
    groups = [
        dataclasses.replace(group, arms=tuple(arm for arm in group.arms if arm != "base"))
        for group in claim.groups
    ]
    groups.append(Group(("compose",), ("base",), (10,), (0,)))
    claim = dataclasses.replace(claim, groups=tuple(groups))
    found = verdicts(claim, results(claim, effect))[0]
    assert (found.verdict, found.exploratory) == ("reproduced", False)


def test_missing_and_failed_cells_are_named_and_there_is_no_verdict():
    claim = experiment("anchor", testbeds=("compose",))
    whole = results(claim, effect)
    del whole["compose-tell-n10-s3"]
    assert verdicts(claim, whole)[0].reason == "compose-tell-n10-s3 is missing"
    name = "compose-mix_without_anchor-n10-s0"
    whole[name] = {**whole[name], "status": "failed", "reason": "out of memory\nat step 3"}
    found, claim_whole = verdicts(claim, whole)
    assert (found.verdict, claim_whole.verdict) == ("none", "none")
    assert found.reason == (
        "compose-tell-n10-s3 is missing, compose-mix_without_anchor-n10-s0 failed (out of memory)"
    )
    for seed in range(4, 8):
        del whole[f"compose-tell-n10-s{seed}"]
    assert verdicts(claim, whole)[0].reason.endswith("is missing and 3 more")


def test_a_cell_that_the_rule_does_not_need_may_fail():
    claim = experiment("anchor", testbeds=("compose",))
    whole = results(claim, effect)
    name = "compose-sft-n1000-s0"
    whole[name] = {**whole[name], "status": "failed", "reason": "x"}
    assert verdicts(claim, whole)[0].verdict == "reproduced"


def test_seeds_that_are_not_planned_do_not_count():
    claim = experiment("anchor", testbeds=("compose",))
    made = results(claim, effect)
    more = experiment("anchor", seeds=12, testbeds=("compose",))
    lucky = {name: each for name, each in results(more, harm).items() if name not in made}
    assert verdicts(claim, {**made, **lucky}) == verdicts(claim, made)


def test_an_arm_that_no_cell_is_planned_for_gives_no_verdict():
    claim = experiment("anchor", testbeds=("compose",))
    claim = dataclasses.replace(claim, groups=claim.groups[1:])
    found = verdicts(claim, results(claim, effect))
    assert found[0].reason == "no run of mix_without_anchor at n = 10 is planned"
    nothing = dataclasses.replace(claim, groups=())
    assert verdicts(nothing, {}) == [
        Verdict(None, "none", "no testbed has runs that the rule needs")
    ]


def test_a_claim_with_cells_is_about_their_testbeds_whatever_the_used_folders_have(tmp_path):
    cells = [{**FOLDERS["anchor"]["cells"][0], "testbeds": ["judge"]}]
    folders = {**FOLDERS, "anchor": {**FOLDERS["anchor"], "cells": cells}}
    root = write_experiments(tmp_path / "e", folders=folders, leave_out=lambda cell: True)
    claim = read_experiment(root / "anchor")
    assert [each.testbed for each in verdicts(claim, {})] == ["judge", None]
    without = dataclasses.replace(claim, groups=())
    assert [each.testbed for each in verdicts(without, {})] == [*TESTBEDS, None]


def test_a_rule_that_changed_after_the_runs_gives_no_verdict():
    claim = experiment("anchor", testbeds=("compose",))
    made = results(claim, effect)
    easier = experiment("anchor", testbeds=("compose",), equivalence=0.5)
    found = verdicts(easier, made)
    assert by_testbed(found) == {"compose": "none", None: "none"}
    assert "the rule was changed: " in found[0].reason
    assert f"under {claim.rule_digest}" in found[0].reason


def test_seeds_that_arms_do_not_share_give_no_verdict_and_no_traceback():
    claim = experiment("anchor", testbeds=("compose",))
    groups = (
        Group(("compose",), ("tell",), (10,), (0, 1, 2, 3, 4)),
        Group(("compose",), ("mix_without_anchor",), (10,), (5, 6, 7, 8, 9)),
    )
    claim = dataclasses.replace(claim, groups=groups)
    found = verdicts(claim, results(claim, effect))[0]
    assert found.verdict == "none"
    assert found.reason == says(
        "rule", rule=["TELL", "Mix without anchor", "compose", "n = 10"], got="none"
    )


def test_tuning_has_no_verdict():
    assert verdicts(experiment("tuning"), {}) == []


@pytest.mark.parametrize(
    ("testbeds", "whole"),
    [
        (("reproduced", "reproduced", "undecided"), "reproduced"),
        (("reproduced", "reproduced", "refuted"), "undecided"),
        (("reproduced", "undecided", "undecided"), "undecided"),
        (("refuted", "refuted", "undecided"), "refuted"),
        (("refuted", "refuted", "reproduced"), "undecided"),
        (("reproduced", "reproduced", "none"), "none"),
    ],
)
def test_a_claim_stands_or_falls_on_two_testbeds_and_none_the_other_way(testbeds, whole):
    found = [
        Verdict(name, verdict, "")  # type: ignore[arg-type]
        for name, verdict in zip(TESTBEDS, testbeds, strict=True)
    ]
    assert overall(found).verdict == whole
    assert overall(found).reason.startswith(f"{sorted(set(testbeds), key=ORDER.index)[0]} on ")


ORDER = ("reproduced", "refuted", "undecided", "none")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "better",
            {},
            says(
                "experiment.yaml: rule.kind",
                rule=["activation", "same_data", "tenfold", "tuning"],
                got="'better'",
            ),
        ),
        (
            "anchor",
            {"against": "tell"},
            says(
                "experiment.yaml: rule.against",
                rule=["sft", "sft_equal_steps", "general_only"],
                got="'tell'",
            ),
        ),
        (
            "tenfold",
            {"reproduced_form": 5},
            says(
                "experiment.yaml: rule.reproduced_form",
                rule=["n", "reproduced_from"],
                got="'reproduced_form'",
                cure="'reproduced_from'",
            ),
        ),
        ("same_data", {"n": 10}, says("experiment.yaml: rule.n", rule="1", got="10")),
        ("tenfold", {"n": True}, says("experiment.yaml: rule.n", rule="1", got="True")),
        (
            "tenfold",
            {"refuted_below": "3"},
            says("experiment.yaml: rule.refuted_below", got="'3'"),
        ),
        (
            "amount",
            {"variants": ["one"]},
            says("experiment.yaml: rule.variants", got="['one']"),
        ),
    ],
)
def test_a_rule_that_is_not_written_as_it_must_be_is_refused(kind, changes, message):
    with pytest.raises(SpecificationError) as error:
        verdicts(experiment(kind, **changes), {})
    assert str(error.value) == message


@pytest.mark.parametrize("kind", RULES)
def test_every_threshold_must_be_given(kind):
    for key in RULES[kind]:
        claim = experiment(kind)
        rule = {name: value for name, value in claim.rule.items() if name != key}
        with pytest.raises(SpecificationError, match=f"rule.{key}: .*, got nothing"):
            verdicts(dataclasses.replace(claim, rule=rule), {})


def test_contrasts_are_the_family_paired_and_adjusted():
    claim = experiment("anchor", testbeds=("compose",))
    made = results(claim, effect)
    rows = contrasts("compose", made)
    assert [row.name for row in rows] == [f"tell - {arm}" for arm in FAMILY]
    tell, sft = (samples(made, "compose", arm, DECLARED_N) for arm in ("tell", "sft"))
    assert tell is not None
    assert sft is not None
    for seed, delta in rows[0].deltas.items():
        assert delta == pytest.approx(tell.by_seed()[seed] - sft.by_seed()[seed])
    assert {row.p_holm for row in rows} == {6 * 2 / 1024}
    # An arm that was not run leaves the family as large as it was declared.
    fewer = {name: each for name, each in made.items() if "arbitrary" not in name}
    assert [row.p_holm for row in contrasts("compose", fewer)] == [6 * 2 / 1024] * 5
    assert contrasts("judge", made) == []


def test_effects_of_mixing_and_anchor_and_of_both_together():
    claim = experiment("anchor", testbeds=("compose",))
    exact = {"sft_without_anchor": 10, "sft": 20, "mix_without_anchor": 40, "tell": 80}
    made = results(claim, lambda cell: exact.get(cell.arm, 0))
    mix, anchor, both = factorial("compose", made)
    assert (mix.name, anchor.name, both.name) == ("mix", "anchor", "interaction")
    for row, truth in ((mix, 45), (anchor, 25), (both, 30)):
        assert row.estimate.low < truth < row.estimate.high
        assert row.estimate.value == pytest.approx(truth, abs=6)
        assert row.p_holm is None
    lacking = {name: each for name, each in made.items() if "-sft-" not in name}
    assert factorial("compose", lacking) == []


def test_curves_give_score_and_loss_at_each_n_with_every_seed():
    claim = experiment("same_data", testbeds=("compose",))
    made = results(claim, effect)
    points = curve(made, "compose", "sft")
    assert [point.n for point in points] == list(SIZES) == sizes(made, "compose", "sft")
    assert points[-1].estimate.value == pytest.approx(rising(1000), abs=5)
    assert sorted(points[0].by_seed) == list(range(10))
    fall = curve(made, "compose", "sft", of=losses)
    assert fall[-1].estimate.value == pytest.approx(2 - rising(1000) / 100, abs=0.03)
    assert fall[0].estimate.low < fall[0].estimate.value < fall[0].estimate.high
    assert [point.n for point in curve(made, "compose", "general_only")] == [0]
    (more,) = curve(made, "compose", "tell", variant="general_3000")
    assert more.estimate.value == pytest.approx(70, abs=5)


def test_the_test_rows_with_the_anchor_off_are_samples_of_their_own():
    made = results(claim := experiment("anchor", testbeds=("compose",)), effect)
    off = samples(made, "compose", "tell", 10, part="test_anchor_off")
    assert off is not None
    assert set(off.by_seed().values()) == {0}
    assert claim.kind == "anchor"


def test_failed_cells_are_no_samples():
    claim = experiment("anchor", testbeds=("compose",))
    made = results(claim, effect)
    name = "compose-tell-n10-s3"
    made[name] = {**made[name], "status": "failed", "reason": "x", "test": None}
    found = samples(made, "compose", "tell", 10)
    assert isinstance(found, Samples)
    assert found.seeds == (0, 1, 2, 4, 5, 6, 7, 8, 9)
    assert contrasts("compose", made)[0].estimate.seeds == 9


def test_seeds_that_were_tested_on_other_rows_are_refused():
    claim = experiment("anchor", testbeds=("compose",))
    made = results(claim, effect)
    test = made["compose-tell-n10-s3"]["test"]
    test["items"]["rows"] = test["items"]["rows"][:60]
    said = says("results", rule=["tell", "compose"], got="60 and 100")
    with pytest.raises(StatisticsError, check=said):
        samples(made, "compose", "tell", 10)
    assert verdicts(claim, made)[0].verdict == "none"


def test_general_data_have_their_price_in_tokens():
    claim = experiment("tenfold", testbeds=("compose",))
    made = results(claim, effect)
    found = data_equivalence(made, "compose", 10)
    assert found is not None
    assert found.examples.value.value == pytest.approx(12, rel=0.25)
    assert found.tokens is not None
    # SFT of 120 examples trains on 12,000 tokens, TELL on 1,000 of the task and 50,000 general.
    assert found.tokens.value.value == pytest.approx(12_000 / 51_000, rel=0.25)
    assert data_equivalence(made, "compose", 10, baseline="general_only") is None
    assert data_equivalence(made, "compose", 7) is None


def test_results_of_used_folders_count_and_own_ones_win(tmp_path):
    (tmp_path / "base.yaml").write_text("{model: {}}", "utf-8")
    testbed = "{task: compose, score: exact_match, chance: 0, config: {}}"
    (tmp_path / "testbeds.yaml").write_text(f"compose: {testbed}", "utf-8")
    arms = [f"{arm.name}: {{label: {arm.label}}}" for arm in ARMS.values()]
    (tmp_path / "arms.yaml").write_text("\n".join(arms), "utf-8")
    form = "title: T\nclaim: C\nrefuted_by: R\nrule: {rule}\nuses: [{uses}]\ncells: {cells}\n"
    cells = "[{testbeds: [compose], arms: [tell, mix_without_anchor], n: [10], seeds: 10}]"
    rules = {
        "same_data": ("{kind: same_data, n: [10], at_least: 1, equivalence: 1}", "", cells),
        "anchor": (
            "{kind: anchor, n: 10, against: mix_without_anchor, equivalence: 1}",
            "../same_data",
            "[]",
        ),
    }
    for name, (rule, uses, listed) in rules.items():
        (tmp_path / name).mkdir()
        text = form.format(rule=rule, uses=uses, cells=listed)
        (tmp_path / name / "experiment.yaml").write_text(text, "utf-8")
    used, claim = (read_experiment(tmp_path / name) for name in rules)
    for made in results(used, effect).values():
        write_result(used.results, {**made, "rules": rule_digests(used.folder)})

    def judged() -> Sequence[Verdict]:
        (study,) = read_experiments(claim.folder, tmp_path).studies
        return study.verdicts

    assert by_testbed(judged()) == {"compose": "reproduced", None: "undecided"}
    found = read_results(used.results)
    easier = dataclasses.replace(claim, rule={**claim.rule, "equivalence": 2})
    assert by_testbed(verdicts(easier, found)) == {"compose": "none", None: "none"}
    own = {**found["compose-tell-n10-s0"], "status": "failed", "reason": "mine"}
    write_result(claim.results, own)
    assert "compose-tell-n10-s0 failed (mine)" in judged()[0].reason
