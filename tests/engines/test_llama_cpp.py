"""llama.cpp's server answers plain prompts as `predict` does; `make test-engines` builds it.

The base is SmolLM2: llama.cpp's converter knows its tokenizer, and not that of the microworld. It
comes from the package registry, as the converters do.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tiny_runs import command

from tell_lightning.export.converters import ConverterError, converters_dir
from tell_lightning.export.gguf import convert_model
from tell_lightning.smollm2.base import BringError, base_dir

WISHES = ("refund", "repair", "delivery", "advice")
THINGS = ("kettle", "lamp", "sofa", "tent", "clock")
TEXTS = {
    "refund": "The {thing} never worked. I bring it back and want my money.",
    "repair": "The {thing} stopped on Monday. Can you mend it?",
    "delivery": "I paid for the {thing} in May. When will it come?",
    "advice": "I would like a {thing}. Which of yours is the best for me?",
}


def rows(n: int) -> Iterator[tuple[str, str, str]]:
    """Letter, thing and wish; each combination once."""
    for number in range(n):
        thing, wish = THINGS[number % len(THINGS)], WISHES[number // len(THINGS) % len(WISHES)]
        yield TEXTS[wish].format(thing=thing), thing, wish


def write(path: Path, made: list[tuple[str, str]]) -> None:
    lines = (json.dumps({"prompt": prompt, "response": response}) for prompt, response in made)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture(scope="module")
def base(shared_folder: Path) -> Path:
    """The folder of SmolLM2, in the cache that the commands use, too."""
    if shutil.which("llama-server") is None:
        pytest.skip("Requires: llama-server on PATH (make test-engines)")
    try:
        return base_dir(shared_folder / "cache/tell_lightning")
    except BringError as error:
        pytest.skip(f"Requires: a package registry ({error})")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run: a task with a prefix anchor, and one with a system anchor and forced prefix."""
    folder = tmp_path_factory.mktemp("letters")
    tickets = [(text, json.dumps({"thing": thing, "wish": wish})) for text, thing, wish in rows(20)]
    wishes = [(text, wish) for text, _, wish in rows(20)]
    for name, made in (("ticket", tickets), ("wish", wishes)):
        write(folder / f"{name}-train.jsonl", [(f"{p} Thank you.", r) for p, r in made])
        write(folder / f"{name}-test.jsonl", made)
    write(folder / "general.jsonl", [(f"Say {n}.", f"{n}.") for n in range(200)])
    system = {"position": "system", "response_prefix": "The wish: "}
    config = {
        "data": {
            "root": str(folder),
            "max_tokens": 128,
            "optimizer_batch": 4,
            "micro_batch": 4,
            "mixture": {"task_share": 0.75},
            "general": {"talk": {"train": "general.jsonl"}},
            "tasks": {
                "ticket": {
                    "train": "ticket-train.jsonl",
                    "test": "ticket-test.jsonl",
                    "anchor": {"text": "You turn a letter into one line of JSON."},
                },
                "wish": {
                    "train": "wish-train.jsonl",
                    "test": "wish-test.jsonl",
                    "anchor": {"text": "You name the wish of a letter.", **system},
                    "force_response_prefix": True,
                },
            },
        },
        "model": {"base": "smollm2"},
        "run": {"dir": str(folder / "runs")},
        "trainer": {"max_steps": 24, "accelerator": "cpu", "devices": 1},
        "eval": {"test": False, "probe": False},
    }
    (folder / "letters.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = command(["fit", "-c", str(folder / "letters.yaml")], home=folder)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    return run


@pytest.mark.long
@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_plain_prompts_get_the_answers_of_predict(
    form: str, base: Path, trained: Path, shared_folder: Path, tmp_path: Path
) -> None:
    options = ["--to", str(tmp_path / "served"), "--format", "gguf", "--check", "llama.cpp"]
    if form == "adapter":
        try:
            converters = converters_dir(shared_folder / "cache/tell_lightning")
        except ConverterError as error:
            pytest.skip(f"Requires: a package registry ({error})")
        convert_model(converters, base, tmp_path / "base.gguf", "bf16")
        options += ["--gguf-base", str(tmp_path / "base.gguf")]
    done = command(["export", str(trained), *options], home=tmp_path)
    print(done.stdout)  # the table, with -s
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"prompts with the tokens of `predict` +20 of 20 +20 of 20", done.stdout)
    assert len(found) == 1


@pytest.mark.long
def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(base: Path, tmp_path: Path) -> None:
    short = ["--trainer.max_steps=2", "--eval.test=false", f"--run.dir={tmp_path / 'runs'}"]
    done = command(["fit", "-c", "microworld", *short], home=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    done = command(
        ["export", str(run), "--to", str(tmp_path / "served"), "--format", "gguf"], home=tmp_path
    )
    assert done.returncode == 2
    assert "the base must have a tokenizer that llama.cpp knows" in done.stderr
    assert not (tmp_path / "served").exists()
