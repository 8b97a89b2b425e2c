"""The command that measures the general ability of an exported model by lm-eval."""

import json
import shlex

from tell_lightning.export.serving import Served

PACKAGE = "lm-eval[hf]==0.4.13"
TASK = "arc_easy"
"""A task to try: its rows come from the hub."""


def lm_eval_arguments(served: Served) -> dict[str, str]:
    """Return lm-eval's `--model_args`.

    The tokenizer is that of the base, whose chat template puts no anchor on: what was forgotten
    shows on prompts without it.

    Args:
        served: The exported folder.
    """
    if served.form == "adapter":
        arguments = {"pretrained": served.base, "peft": served.folder}
    else:
        arguments = {"pretrained": served.folder, "tokenizer": served.base}
    return arguments | ({"revision": served.revision} if served.revision else {})


def lm_eval_line(served: Served) -> str:
    """Return the command for one task of lm-eval.

    Args:
        served: The exported folder.
    """
    arguments = json.dumps(lm_eval_arguments(served), ensure_ascii=False)
    words = ["lm_eval", "run", "--model", "hf", "--model_args", arguments]
    return f"{shlex.join(words)} \\\n  --apply_chat_template --tasks {TASK}"
