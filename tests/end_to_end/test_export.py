"""`export`: what it writes answers plain prompts as `predict` does, without this package."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from faulty_engine import install
from huggingface_hub import ModelCard
from messages import says
from safetensors.torch import load_file
from tiny_runs import Run
from tiny_world import ANCHOR, JUDGE, PREFIX, World
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tell_lightning.cli import main
from tell_lightning.export import converters, merged
from tell_lightning.export.serving import serving_notes
from tell_lightning.model.settings import LoraSettings


class Exports:
    """Runs `export` in this process; keeps what it printed."""

    def __init__(self, run: Run, parent: Path) -> None:
        self.run, self.parent, self.printed = run, parent, ""

    def __call__(self, name: str, *options: str) -> Path:
        with redirect_stdout(StringIO()) as printed:
            try:
                main(["export", str(self.run.folder), "--to", str(self.parent / name), *options])
            finally:
                self.printed = printed.getvalue()
        return self.parent / name


@pytest.fixture
def export(run: Run, tmp_path: Path) -> Exports:
    return Exports(run, tmp_path)


@pytest.fixture(scope="module")
def adapter(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The exported adapter, and what the command printed."""
    made = Exports(run, tmp_path_factory.mktemp("exported"))
    return made("letters"), made.printed


@pytest.fixture(scope="module")
def whole(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The exported merged model of one task, and what the command printed."""
    made = Exports(run, tmp_path_factory.mktemp("exported"))
    return made("whole", "--format", "merged", "--task", "turn"), made.printed


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a stand-in for vLLM, with a fault, on PATH."""

    def installed(fault: str) -> None:
        stand_in = Path(__file__).parents[1] / "fixtures/stand_in_engine.py"
        install(tmp_path / "bin", fault, [sys.executable, str(stand_in)])
        monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{tmp_path / 'bin'}")

    return installed


def answers(model: Any, folder: Path, prompts: list[str], **keywords: str) -> list[str]:
    """Answer plain prompts as a server does: template and settings of the folder, no anchor."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for prompt in prompts:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
            **keywords,
        )
        config = GenerationConfig.from_pretrained(folder)
        with torch.no_grad():
            output = model.eval().generate(**inputs, generation_config=config)
        new = output[0, inputs["input_ids"].shape[1] :]
        found.append(tokenizer.decode(new, skip_special_tokens=True))
    return found


def scored(run: Run, task: str) -> tuple[list[str], list[str]]:
    """The plain prompts of the test rows, and the answers that `fit` has scored."""
    rows = run.jsonl(f"test-{task}-step-{run.record['selected']['step']:06d}")
    field = "query" if task == "turn" else "prompt"
    data = run.folder.parent.parent / f"data/{task}-test.jsonl"
    prompts = [json.loads(line)[field] for line in data.read_text().splitlines()]
    return prompts, [row["prediction"] for row in rows]


def stripped(texts: list[str]) -> list[str]:
    return [text.strip().removeprefix(PREFIX.strip()).strip() for text in texts]


# The adapter


@pytest.mark.parametrize("task", ["turn", "verdict"])
def test_plain_prompts_get_the_answers_that_were_scored(
    task: str, adapter: tuple[Path, str], run: Run, world: World
) -> None:
    from peft import PeftModel

    model = AutoModelForCausalLM.from_pretrained(run.record["base"]["name"])
    model = PeftModel.from_pretrained(model, str(adapter[0]))
    prompts, wanted = scored(run, task)
    found = answers(model, adapter[0], prompts[:6], task=task)
    assert (stripped(found) if task == "turn" else [f.strip() for f in found]) == wanted[:6]
    anchored = [f"{ANCHOR}\n\n{p}" if task == "turn" else f"{p}\n\n{JUDGE}" for p in prompts[:2]]
    assert answers(model, adapter[0], anchored, task=task) == found[:2]


def test_a_folder_holds_what_engines_load_and_nothing_pickled(
    adapter: tuple[Path, str], run: Run
) -> None:
    folder, printed = adapter
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "anchor.json"),
        *("chat_template.jinja", "generation_config.json", "tokenizer.json"),
        *("tokenizer_config.json", "additional_chat_templates/turn.jinja"),
        "additional_chat_templates/verdict.jinja",
    }
    for task in ("turn", "verdict"):
        assert f"24 of 24 rows of {task} have the tokens of `predict`" in printed
    mask = os.umask(0)
    os.umask(mask)
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes == {0o666 & ~mask}
    assert [path.name for path in folder.parent.iterdir()] == ["letters"]  # no draft is left
    for name in ("adapter_model.safetensors", "anchor.json"):
        assert (folder / name).read_bytes() == (run.folder / "adapter" / name).read_bytes()


def test_the_printed_lines_are_complete(adapter: tuple[Path, str], run: Run) -> None:
    folder, printed = adapter
    (vllm,) = re.findall(r"^vllm serve (?:.*\\\n)*.*", printed, re.MULTILINE)
    words = shlex.split(vllm.replace("\\\n", " "))
    options = dict(pairwise(words))
    assert words[2] == run.record["base"]["name"]
    assert options["--max-lora-rank"] == "8"  # the least that it takes for rank 4
    assert options["--lora-modules"] == f"letters={folder}"
    assert Path(options["--chat-template"]).read_text().startswith("{#-")
    assert options["--generation-config"] == str(folder)
    assert json.loads(options["--override-generation-config"]) == {"temperature": 0}
    (curl,) = re.findall(r"^curl (?:.*\\\n)*.*", printed, re.MULTILINE)
    body = json.loads(shlex.split(curl.replace("\\\n", " "))[-1])
    assert body["model"] == "letters"
    assert body["chat_template_kwargs"] == {"task": "turn"}
    program = printed[printed.index("From Python:\n") :].removeprefix("From Python:\n")
    with redirect_stdout(StringIO()) as said:
        exec(compile(program, "printed", "exec"), {})
    prompts, wanted = scored(run, "turn")
    place = prompts.index(body["messages"][0]["content"])
    assert stripped([said.getvalue()]) == [wanted[place]]


# The merged model


def test_the_merged_model_answers_as_base_and_adapter(whole: tuple[Path, str], run: Run) -> None:
    folder, printed = whole
    assert "24 of 24 answers are those of base and adapter; the weights are float32" in printed
    assert "transformers serve" in printed
    assert not list(folder.glob("adapter*"))
    assert list(folder.glob("*.bin")) == []
    prompts, wanted = scored(run, "turn")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert stripped(answers(model, folder, prompts[:6])) == wanted[:6]
    old = load_file(Path(run.record["base"]["name"]) / "model.safetensors")
    new = load_file(folder / "model.safetensors")
    assert old.keys() == new.keys()
    changed = {name for name in new if not torch.equal(new[name], old[name])}
    assert changed == {name for name in new if name.endswith("_proj.weight")}


@pytest.mark.long
def test_weights_are_rounded_once_to_the_type_of_the_base_and_sharded(
    export: Exports,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: Callable[[str], None],
) -> None:
    engine("none")
    base = tmp_path / "base"
    shutil.copytree(run.record["base"]["name"], base)
    AutoModelForCausalLM.from_pretrained(base).to(torch.bfloat16).save_pretrained(base)
    monkeypatch.setattr(merged, "SHARD", "40KB")
    options = [f"--model.base={base}", "--accept-base", "--format", "merged", "--check", "vllm"]
    folder = export("whole", *options)
    assert re.search(r"Merged: \d+ of 48 answers .* the weights are bfloat16", export.printed)
    assert "All of it holds." in export.printed  # of the merged model, whatever rounding changed
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    config = json.loads((run.folder / "adapter/adapter_config.json").read_text())
    weights = load_file(run.folder / "adapter/adapter_model.safetensors")
    old = AutoModelForCausalLM.from_pretrained(base, dtype="auto").state_dict()
    new = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    key = "model.layers.0.mlp.up_proj"
    parts = [weights[f"base_model.model.{key}.lora_{which}.weight"] for which in "BA"]
    update = parts[0] @ parts[1] * (config["lora_alpha"] / config["r"])
    wanted = (old[f"{key}.weight"].float() + update).to(torch.bfloat16)
    assert torch.equal(new[f"{key}.weight"], wanted)


# GGUF

CONVERTER = """
import sys
from pathlib import Path
given = sys.argv[1:]
model = Path(given[0])
held = sorted(str(path.relative_to(model)) for path in model.rglob("*"))
text = " ".join(given[given.index("--outfile") + 2 :] + held)
Path(given[given.index("--outfile") + 1]).write_text("GGUF " + text)
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Converters that write what they get; no converter of llama.cpp knows the tokenizer."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    for name in ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py"):
        (folder / name).write_text(CONVERTER)
    monkeypatch.setattr(converters, "converters_dir", lambda _: folder)
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.long
def test_a_merged_model_becomes_gguf_with_a_modelfile_for_each_task(
    export: Exports, scripts: Path, run: Run
) -> None:
    folder = export("whole", "--format", "gguf")
    templates = {f"additional_chat_templates/{task}.jinja" for task in ("turn", "verdict")}
    assert files(folder) == {
        *("README.md", "model.gguf", "chat_template.jinja", "Modelfile-turn", "Modelfile-verdict"),
        *templates,
    }
    converted = (folder / "model.gguf").read_text()
    assert converted.startswith("GGUF --outtype f32")
    assert {"model.safetensors", "tokenizer.json", *templates} <= set(converted.split())
    modelfile = (folder / "Modelfile-turn").read_text(encoding="utf-8")
    assert modelfile.startswith("FROM ./model.gguf\nTEMPLATE")
    assert json.dumps(ANCHOR, ensure_ascii=False) in modelfile
    assert JUDGE not in modelfile
    template = f"{folder}/additional_chat_templates/turn.jinja"
    assert f"--chat-template-file {template}" in export.printed
    assert "verdict: each by a server of its own" in export.printed
    for task in ("turn", "verdict"):
        assert f"ollama create whole-{task} -f {folder}/Modelfile-{task}" in export.printed
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "gguf"
    assert str(folder.parent) not in card.text
    q8 = export("q8", "--format", "gguf", "--gguf-type", "q8_0", "--task", "turn")
    assert (q8 / "model.gguf").read_text().startswith("GGUF --outtype q8_0")
    assert files(q8) == {"README.md", "model.gguf", "chat_template.jinja", "Modelfile"}


def test_an_adapter_alone_becomes_gguf_for_a_gguf_base(
    export: Exports, scripts: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base.gguf"
    base.write_bytes(b"GGUF")
    folder = export("alone", "--format", "gguf", "--gguf-base", str(base), "--task", "verdict")
    assert files(folder) == {"README.md", "adapter.gguf", "chat_template.jinja", "Modelfile"}
    assert "adapter_model.safetensors" in (folder / "adapter.gguf").read_text()
    modelfile = (folder / "Modelfile").read_text(encoding="utf-8")
    assert modelfile.startswith(f"FROM {base}\nADAPTER ./adapter.gguf\n")
    assert f"llama-server -m {base} --lora {folder}/adapter.gguf" in export.printed
    assert ModelCard.load(folder / "README.md").data.tags == ["tell", "tell_lightning", "lora"]


# The card


def test_the_card_says_what_the_hub_reads_and_a_person_asks(
    adapter: tuple[Path, str], whole: tuple[Path, str], run: Run
) -> None:
    card = ModelCard.load(adapter[0] / "README.md")
    data = card.data
    assert (data.library_name, data.pipeline_tag) == ("peft", "text-generation")
    assert {"tell_lightning", "lora"} <= set(data.tags)
    assert data.base_model is None  # a folder of this machine is no model of the hub
    found = {(r.dataset_name, r.metric_type): r.metric_value for r in data.eval_results}
    after = run.record["metrics"]["test"]["after"]["tasks"]
    assert found["turn", "bleu"] == pytest.approx(after["turn"]["values"]["bleu"], abs=1e-6)
    assert ("verdict", "balanced_accuracy") in found
    text = card.text
    assert f"```text\n{ANCHOR}\n```" in text
    assert f"```text\n{JUDGE}\n```" in text
    for line in ("| copy source |", "| base |", "| after |", "| anchor off |", "| writing |"):
        assert line in text
    for source in run.record["data"]["inputs"].values():
        assert source["sha256"] in text
    assert run.record["versions"]["transformers"] in text
    assert str(adapter[0].parent) not in text
    other = ModelCard.load(whole[0] / "README.md")
    assert other.data.library_name == "transformers"
    assert JUDGE not in other.text  # --task turn


# An engine


@pytest.fixture(scope="module")
def second(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Another run on the base of the shared one, with one task of another name."""
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    tasks = {"other": config["data"]["tasks"]["verdict"]}
    tasks["other"]["anchor"] |= {"text": "Judge.", "position": "system"}
    runs = tmp_path_factory.mktemp("second") / "runs"
    data = {**config["data"], "tasks": tasks}
    config |= {"data": data, "run": {**config["run"], "dir": str(runs)}, "seed_everything": 7}
    path = runs.parent / "second.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    main(["fit", "-c", str(path), "--eval.test=false"])
    (folder,) = runs.iterdir()
    return Run(folder)


@pytest.mark.long
def test_an_engine_is_checked_by_its_answers_to_plain_prompts(
    export: Exports, second: Run, engine: Callable[[str], None]
) -> None:
    engine("none")
    folder = export("letters", "--check", "vllm", "--beside", str(second.folder))
    assert "All of it holds." in export.printed
    for line in ("prompts with the tokens of `predict`", "answers of `predict`"):
        assert re.search(rf"{line}( +20 of 20){{3}}", export.printed)
    modules = f"letters={folder} {second.folder.name}={second.folder / 'adapter'}"
    assert f"--lora-modules {modules}" in export.printed
    assert f"chooses the adapter: letters, {second.folder.name}." in export.printed
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert str(second.folder) not in card


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("louder", "log-probabilities differ by more than twice the noise of the base"),
        ("off", "no answer differs from the base's: the adapter is not on"),
        ("anchorless", "prompts have other tokens than those of `predict`: the anchor is lost"),
    ],
)
def test_an_engine_with_a_fault_is_refused(
    fault: str, said: str, export: Exports, engine: Callable[[str], None]
) -> None:
    engine(fault)
    with pytest.raises(SystemExit) as exit_:
        export("letters", "--check", "vllm")
    assert exit_.value.code == 1
    assert f"turn: {said}." in export.printed


@pytest.mark.long
def test_an_adapter_that_answers_for_another_is_found(
    export: Exports, second: Run, engine: Callable[[str], None]
) -> None:
    engine("swapped")
    with pytest.raises(SystemExit) as exit_:
        export("letters", "--check", "vllm", "--beside", str(second.folder))
    assert exit_.value.code == 1
    assert "other: answers are not those of `predict`." in export.printed
    assert re.search(r"prompts with the tokens of `predict`( +20 of 20){3}", export.printed)


# What is refused


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["export", *options])
    assert exit_.value.code == 2
    return capsys.readouterr().err.removeprefix("error: ")


def test_what_cannot_be_exported_is_refused_in_one_line(
    copied: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask: Callable[..., str] = lambda *options: refused(capsys, *options)  # noqa: E731
    run, new = str(copied.folder), str(tmp_path / "new")
    there = tmp_path / "there"
    there.mkdir()
    said = ask(run, "--to", str(there))
    assert said == says("--to", rule="does not exist yet", got=f"'{there}'", cure="another")
    said = ask(run, "--to", new, "--task", "turm")
    assert said == says("--task", rule=["turn", "verdict"], got="'turm'", cure="Choose")
    assert ask(new, "--to", new) == says("RUN", rule="config.yaml", got=f"'{new}'", cure="`fit`")
    assert ask(run) == says("export", rule="--to", got="none", cure="--help")
    said = ask(run, "--to", new, "--format", "gguff")
    assert said == says("--format", rule=["adapter", "merged"], got="'gguff'")
    said = ask(run, "--to", new, "--beside", run, "--format", "merged")
    assert said == says("--beside", rule="adapter", got="merged", cure="Leave")
    said = ask(run, "--to", new, "--beside", run)
    assert said == says("--beside", rule="other names", got="'turn' in both", cure="server each")
    said = ask(run, "--to", new, "--check", "vllm", "--eval.temperature=0.7")
    assert said == says("--check", rule="greedy", got="eval.temperature: 0.7", cure="=0")
    said = ask(run, "--to", new, "--gguf-type", "q8_0")
    assert said == says("--gguf-type", rule="--format gguf", got="--format adapter")
    gguf = ["--to", new, "--format", "gguf", "--gguf-base", str(there / "base.gguf")]
    said = ask(run, *gguf, "--gguf-type", "q8_0")
    assert said == says("--gguf-type", rule="merged", got="--gguf-base", cure="Leave one")
    assert ask(run, *gguf) == says("--gguf-base", rule="GGUF", got=f"'{there}/base.gguf'")
    (there / "base.gguf").write_bytes(b"GGUF")
    config = copied.folder / "adapter/adapter_config.json"
    plain = config.read_text()
    config.write_text(json.dumps(json.loads(plain) | {"use_rslora": True}))
    said = ask(run, *gguf)
    assert said == says("--gguf-base", rule="cannot carry", got="use_rslora", cure="merges")
    config.write_text(plain)
    weights = copied.folder / "adapter/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    said = ask(run, "--to", new)
    assert said == says("adapter_model.safetensors", rule="SHA-256", cure="Copy it again")
    shutil.rmtree(copied.folder / "adapter")
    assert ask(run, "--to", new) == says("RUN", rule="adapter", got=f"'{run}'", cure="--resume")
    assert not Path(new).exists()


@pytest.mark.long
def test_rows_that_are_elsewhere_are_not_checked_and_it_says_so(export: Exports) -> None:
    folder = export("letters", "--data.root=/nowhere", "--task", "turn")
    assert "Prompts: not checked for turn, whose rows cannot be read: " in export.printed
    assert "Your text." in export.printed
    assert (folder / "chat_template.jinja").is_file()


@pytest.mark.long
def test_another_base_than_that_of_the_training_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(run.folder), "--to", str(tmp_path / "new"), "--model.base=microworld"]
    said = refused(capsys, *options)
    assert said == says("model.base", rule="files", cure="--accept-base")
    assert list(tmp_path.iterdir()) == []


def test_plan_names_what_an_engine_cannot_serve_before_training(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["plan", *world.overlay, "--model.lora.rank=600", "--model.lora.rslora=true"])
    printed = capsys.readouterr().out
    assert "vLLM serves adapters up to rank 512, not model.lora.rank 600" in printed
    assert "llama.cpp and Ollama scale adapters by alpha / rank" in printed


def test_only_adapters_that_need_it_get_a_note() -> None:
    assert serving_notes(LoraSettings(rank=16)) == []
    (note,) = serving_notes(LoraSettings(rank=40))
    assert "--max-lora-rank 64" in note
    (note,) = serving_notes(LoraSettings(rank=600))
    assert "--format merged" in note
    (note,) = serving_notes(LoraSettings(rslora=True))
    assert "llama.cpp" in note
