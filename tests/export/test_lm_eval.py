"""The command of lm-eval that `export` prints."""

import json
import shlex

import pytest

from tell_lightning.export.lm_eval import lm_eval_line
from tell_lightning.export.serving import Form, Served


@pytest.mark.parametrize(
    ("form", "revision", "wanted"),
    [
        ("adapter", None, {"pretrained": "owner/base", "peft": "my dir/it's"}),
        (
            "adapter",
            "0123abc",
            {"pretrained": "owner/base", "peft": "my dir/it's", "revision": "0123abc"},
        ),
        ("merged", None, {"pretrained": "my dir/it's", "tokenizer": "owner/base"}),
    ],
)
def test_a_model_is_measured_with_the_chat_template_of_its_base(
    form: Form, revision: str | None, wanted: dict[str, str]
) -> None:
    served = Served(
        folder="my dir/it's",
        form=form,
        base="owner/base",
        revision=revision,
        rank=4,
        tasks=["a"],
        prompt="Hi.",
    )
    words = shlex.split(lm_eval_line(served).replace("\\\n", " "))
    assert words[:4] == ["lm_eval", "run", "--model", "hf"]
    assert json.loads(words[words.index("--model_args") + 1]) == wanted
    assert "--apply_chat_template" in words
