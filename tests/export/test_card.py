"""The model card: what the hub reads in it, and what a person does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results

from tell_lightning.export.anchor_file import AnchorFile
from tell_lightning.export.card import DataSource, card
from tell_lightning.export.serving import Form, Served

SOURCES = {
    "translate": DataSource(license="CC-BY-SA-4.0"),
    "judge": DataSource(hub="owner/judged", revision="0123abc"),
    "general": DataSource(hub="owner/general", license="A licence of ours | ask us\nfirst"),
    "unused": DataSource(hub="owner/unused", license="mit"),
}


def served(form: Form = "adapter", base: str = "owner/base") -> Served:
    return Served(
        folder="letters",
        form=form,
        base=base,
        revision=None,
        rank=4,
        tasks=["translate", "judge"],
        prompt="Hi.",
    )


def scores(value: float, rows: int = 24) -> dict[str, Any]:
    return {
        "values": {"bleu": value, "chrf": value / 2, "rows": rows},
        "primary": "bleu",
        "intervals": {"bleu": [value - 1, value + 1]},
    }


def moment(value: float, loss: float) -> dict[str, Any]:
    losses = {"translate": 0.5, "general": loss}
    return {
        "step": 4,
        "tasks": {"translate": scores(value)},
        "loss_nats_per_token": losses,
        "probe": {"loss": loss + 1},
    }


RECORD = {
    "metrics": {
        "test": {
            "before": moment(10.0, 1.5),
            "after": moment(40.0, 1.625),
            "floors": {"translate": {"copy_source": scores(3.0)}},
        },
        "test_without_anchor": {"after": moment(20.0, 0.0)},
    },
    "data": {
        "inputs": {name: {"sha256": f"{name}-digest"} for name in ("translate", "judge", "general")}
    },
    "mixture": {
        "sources": {"translate": {"kind": "task", "rows": 6, "rows_seen": 6, "passes": 2.5}}
    },
    "versions": {"python": "3.11", "transformers": "5.23.0"},
    "git": {"commit": "abc123"},
}


def table(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose heading begins with a word."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {head} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert {len(row) for row in rows} == {len(rows[0])}
    return [rows[0], *rows[2:]]


def test_data_have_their_place_licence_and_digest(anchors: AnchorFile) -> None:
    text = card(served(), anchors, RECORD, SOURCES)
    heads, *rows = table(text, "source")
    assert heads == [
        *("source", "data set", "licence", "kind", "rows", "rows seen", "passes"),
        "SHA-256 of its rows",
    ]
    assert rows[0] == ["translate", "", "CC-BY-SA-4.0", "task", "6", "6", "2.5",
                       "`translate-digest`"]  # fmt: skip
    link = "[owner/judged](https://huggingface.co/datasets/owner/judged) at `0123abc`"
    assert rows[1][:3] == ["judge", link, ""]
    assert rows[2][2] == "A licence of ours &#124; ask us first"
    assert "unused" not in text  # it was not trained on


def test_licences_of_the_data_are_not_that_of_the_model(anchors: AnchorFile) -> None:
    data = ModelCard(card(served(), anchors, RECORD, SOURCES)).data
    assert data.license is None
    assert data.datasets == ["owner/judged", "owner/general"]


def test_the_metadata_are_those_that_the_hub_reads(anchors: AnchorFile) -> None:
    on_hub = replace(anchors, base="owner/base")
    text = card(served(), on_hub, RECORD, SOURCES)
    data = ModelCard(text).data
    assert (data.base_model, data.library_name) == ("owner/base", "peft")
    assert data.base_model_relation == "adapter"
    # What comes back is what went in, also as the hub's model-index.
    again = yaml.safe_load(data.to_yaml())
    name, results = model_index_to_eval_results(again["model-index"])
    assert name == "letters"
    found = {(r.dataset_name, r.dataset_split, r.metric_type): r.metric_value for r in results}
    assert found["translate", "test", "bleu"] == 40.0
    assert {result.task_type for result in results} == {"text-generation"}
    assert ModelCardData(**{k: v for k, v in again.items() if k != "model-index"}).datasets
    merged = ModelCard(card(served("merged"), on_hub, RECORD, SOURCES)).data
    assert (merged.library_name, merged.base_model_relation) == ("transformers", "finetune")


@pytest.mark.parametrize("base", ["microworld", "/home/me/models/base", "base.folder"])
def test_a_base_that_is_not_on_the_hub_is_not_linked(base: str, anchors: AnchorFile) -> None:
    text = card(served(base=base), replace(anchors, base=base), RECORD, SOURCES)
    assert ModelCard(text).data.base_model is None


def test_a_base_in_a_folder_is_named_without_the_way_to_it(
    anchors: AnchorFile, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    text = card(served(base=str(base)), replace(anchors, base=str(base)), RECORD, SOURCES)
    assert "put its folder in place of `base` below" in text
    assert "vllm serve base " in text
    assert str(tmp_path) not in text
    on_hub = card(served(), replace(anchors, base="owner/base"), RECORD, SOURCES)
    assert "in place of" not in on_hub


def test_scores_have_intervals_baselines_and_the_anchor_off(anchors: AnchorFile) -> None:
    text = card(served(), anchors, RECORD, SOURCES)
    assert "translate, 24 test rows:" in text
    for line in ("copy source", "base", "after", "anchor off"):
        assert f"\n| {line} |" in text
    assert "40" in text
    assert "[39" in text
    forgotten = text.partition("## What was forgotten")[2]
    assert "| general | 1.500 | 1.625 |" in forgotten
    assert "| short chat prompts | 2.500 | 2.625 |" in forgotten
    assert "| translate |" not in forgotten.partition("## Data")[0]


def test_anchors_stand_there_in_full(anchors: AnchorFile) -> None:
    task = anchors.tasks["judge"]
    fenced = replace(task, anchor=replace(task.anchor, text="Code:\n```\nx\n```\nEnd."))
    text = card(served(), replace(anchors, tasks={"judge": fenced}), RECORD, SOURCES)
    assert "````text\nCode:\n```\nx\n```\nEnd.\n````" in text


def test_a_folder_on_the_hub_is_brought_first(anchors: AnchorFile) -> None:
    line = "hf download me/letters --local-dir letters"
    assert line in card(served(), anchors, RECORD, SOURCES, "me/letters")
    assert "hf download" not in card(served(), anchors, RECORD, SOURCES)


def test_a_run_without_a_record_has_a_card(anchors: AnchorFile) -> None:
    text = card(served(), anchors, {}, {"translate": DataSource(license="mit")})
    assert ModelCard(text).data.eval_results is None
    assert table(text, "source") == [["source", "licence"], ["translate", "mit"]]
    assert "## Scores" not in text
    assert "## Data" not in card(served(), anchors, {}, {"translate": DataSource()})


def test_names_that_yaml_reads_as_something_else_stay_names(anchors: AnchorFile) -> None:
    record = json.loads(json.dumps(RECORD).replace('"translate"', '"no: yes # 1"'))
    data = ModelCard(card(served(), anchors, record, SOURCES)).data
    assert {result.dataset_name for result in data.eval_results} == {"no: yes # 1"}
