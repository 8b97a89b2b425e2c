"""Rows that a base writes itself: from its template alone, restartable, and the same every time."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import combinations
from pathlib import Path

import pytest
from filelock import FileLock
from messages import says
from tiny_models import save_llama
from tiny_runs import environment
from tiny_tokenizers import byte_tokenizer, chat_template, family_tokenizer

from tell_lightning import TellDataModule, files, generate_general
from tell_lightning.data.control import ControlTokens
from tell_lightning.data.reading import read_records
from tell_lightning.data.records import Fields
from tell_lightning.data.settings import DataSettings, General
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokenizer import BaseModelError
from tell_lightning.generation import instructions
from tell_lightning.generation.instructions import Attempt, Sieve, users_turn, write_rows
from tell_lightning.generation.layout import GenerationError
from tell_lightning.generation.probe_prompts import prompts as probe_prompts
from tell_lightning.generation.row_filters import SAME_WORDS, words
from tell_lightning.model.settings import ModelSettings

ROWS = 12
KEY = "data.general.self.generate"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The microworld writes short rows; blocks are small, so that there are several."""
    monkeypatch.setitem(instructions.BLOCK, "cpu", 6)


def write(cache: Path, rows: int = ROWS, *, seed: int = 42) -> instructions.Written:
    data = DataSettings(cache_dir=str(cache))
    model = ModelSettings(base="microworld", dtype="float32")
    return write_rows(model, data, General(generate=rows), seed=seed, key=KEY)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the microworld's base has written rows."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(instructions.BLOCK, "cpu", 6)
        write(folder)
    return folder


@pytest.fixture
def own(cache: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cache, tmp_path / "cache"))


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def rows_folder(cache: Path) -> Path:
    (folder,) = cache.glob("instructions-*")
    return folder


def refuse(*_: object, **__: object) -> None:
    pytest.fail("the base was loaded")


def test_rows_have_a_prompt_and_an_answer_and_no_two_are_alike(cache: Path) -> None:
    written = write(cache)
    found = [json.loads(line) for line in lines(written.rows)]
    assert len(found) == ROWS
    assert all(set(row) == {"prompt", "response"} and all(row.values()) for row in found)
    sets = [set(words(row["prompt"])) for row in found]
    assert max(len(a & b) / len(a | b) for a, b in combinations(sets, 2)) < SAME_WORDS
    read_records(str(written.rows), fields=Fields(), root=Path())


def test_every_attempt_is_counted_as_a_row_or_by_its_fault(cache: Path) -> None:
    written = write(cache)
    folder = rows_folder(cache)
    facts = json.loads((folder / f"report-{ROWS}.json").read_text())
    assert facts["attempts"] == ROWS + sum(facts["faults"].values())
    attempts = [
        json.loads(line) for path in sorted(folder.glob("0*.jsonl")) for line in lines(path)
    ]
    pairs = [(each["prompt"], each["answer"]) for each in attempts]
    place = -1
    for row in map(json.loads, lines(written.rows)):  # in the order of the attempts
        place = pairs.index((row["prompt"], row["response"]), place + 1)
    assert place + 1 == facts["attempts"]
    assert f"{ROWS} rows" in written.line
    assert all(f"{count:,} {fault}" in written.line for fault, count in facts["faults"].items())


def test_held_out_rows_are_set_apart(cache: Path) -> None:
    written = write(cache)
    assert written.held_out is not None
    train, held_out = lines(written.train), lines(written.held_out)
    assert sorted(train + held_out) == sorted(lines(written.rows))
    assert len(held_out) == ROWS // 2


@pytest.mark.parametrize(("rows", "held"), [(1, 0), (30, 15), (60, 20), (400, 20), (2000, 100)])
def test_a_twentieth_is_held_out_and_at_least_twenty(rows: int, held: int) -> None:
    found = [{"prompt": str(row), "response": "x"} for row in range(rows)]
    chosen = instructions.held_out_rows(found)
    assert len(chosen) == held
    texts = {found[place]["prompt"] for place in chosen}
    backwards = {found[::-1][place]["prompt"] for place in instructions.held_out_rows(found[::-1])}
    assert texts == backwards


def test_rows_are_written_once(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "load_base", refuse)
    before = lines(write(own).rows)
    assert lines(write(own, ROWS - 4).rows) == before[: ROWS - 4]


def test_more_rows_begin_with_the_rows_of_fewer(own: Path) -> None:
    before = lines(write(own).rows)
    assert lines(write(own, ROWS + 3).rows)[:ROWS] == before


def test_rows_do_not_depend_on_batches_or_blocks_but_on_the_seed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = lines(write(cache).rows)
    monkeypatch.setitem(instructions.BLOCK, "cpu", 11)
    monkeypatch.setattr(instructions, "BATCH_TOKENS", 1500)
    assert lines(write(tmp_path / "other").rows) == wanted
    assert lines(write(tmp_path / "other", seed=43).rows) != wanted


PROGRAM = """
import sys, time
from tell_lightning.data.settings import DataSettings, General
from tell_lightning.generation import instructions
from tell_lightning.model.settings import ModelSettings

instructions.BLOCK["cpu"] = 6
write = instructions._write_lines
blocks = []

def slowly(path, lines):
    blocks.append(path)
    if len(blocks) == 2:
        (path.parent / f".{path.name}.1").write_text(lines[0][:9])  # half of a draft
        time.sleep(100)
    write(path, lines)

instructions._write_lines = slowly
model = ModelSettings(base="microworld", dtype="float32")
data = DataSettings(cache_dir=sys.argv[2])
instructions.write_rows(model, data, General(generate=int(sys.argv[1])), seed=42, key="")
"""


def test_closings_end_the_prompts_in_turn(tmp_path: Path) -> None:
    closings = ["Be brief.", "", "Say it in English."]
    source = generate_general(
        "microworld", 6, closings=closings, held_out=False, cache_dir=str(tmp_path)
    )
    attempts = [
        json.loads(line)
        for path in sorted(rows_folder(tmp_path).glob("0*.jsonl"))
        for line in lines(path)
    ]
    assert [each["closing"] for each in attempts[:4]] == [*closings, closings[0]]
    written = {
        f"{each['prompt']}\n\n{each['closing']}".strip(): each["answer"] for each in attempts
    }
    rows = [json.loads(line) for line in lines(Path(str(source.train)))]
    assert all(written[row["prompt"]] == row["response"] for row in rows)
    assert any(row["prompt"].endswith("\n\nBe brief.") for row in rows)


@pytest.mark.parametrize(("max_tokens", "longest"), [(20, 10), (2000, 256)])
def test_an_answer_has_at_most_half_of_the_tokens_of_a_row(
    max_tokens: int, longest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def stop(*arguments: object, **_: object) -> None:
        limits.append(arguments[3].max_new_tokens)
        if len(limits) == 2:
            raise GenerationError("enough")
        return generate(*arguments, **_)

    generate = instructions.generate
    monkeypatch.setattr(instructions, "generate", stop)
    with pytest.raises(GenerationError, match="enough"):
        generate_general("microworld", 6, max_tokens=max_tokens, cache_dir=str(tmp_path))
    assert limits == [64, longest]


@pytest.mark.long
def test_a_killed_process_goes_on_from_its_last_block(cache: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(ROWS), str(other)], env=environment(tmp_path)
    )
    while not list(other.glob("instructions-*/.000006.jsonl.1")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = rows_folder(other) / "000000.jsonl"
    changed = first.stat().st_mtime_ns
    assert lines(write(other).rows) == lines(write(cache).rows)
    assert first.stat().st_mtime_ns == changed


def test_a_second_process_waits_for_the_first(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.01)
    monkeypatch.setattr(instructions, "load_base", refuse)
    folder = rows_folder(own)
    report = folder / f"report-{ROWS}.json"
    report.rename(folder / "aside")
    found = []
    lock = FileLock(own / f".{folder.name}.lock", thread_local=False)
    with lock:
        thread = threading.Thread(target=lambda: found.append(write(own)))
        thread.start()
        said = ""
        while "another process" not in said:
            said += capsys.readouterr().err
            time.sleep(0.01)
        assert not found
        (folder / "aside").rename(report)
    thread.join()
    assert len(found) == 1


def test_the_probe_and_repeats_are_no_rows() -> None:
    sieve = Sieve(3, ControlTokens(["<end>"]))
    good = Attempt("How do I peel an egg?", True, "Be brief.", "Under water.", True)
    attempts = [
        Attempt(probe_prompts()[0], True),
        good,
        good,
        Attempt("So how do I peel an egg?", True),
        Attempt("Say <end> twice to me", True),
        Attempt("Who wrote so long a book?", True, "", "It was", False),
        Attempt("Where do the cranes go in winter?", True, "", "South.", True),
    ]
    faults = sieve.prompt_faults(attempts)
    wanted = ["repeat", "", "repeat", "near repeat", "control tokens", "", ""]
    assert faults == wanted
    sieve.take(attempts, faults)
    assert sieve.kept == [
        {"prompt": "How do I peel an egg?\n\nBe brief.", "response": "Under water."},
        {"prompt": "Where do the cranes go in winter?", "response": "South."},
    ]
    assert sieve.faults == {
        "repeat": 2, "near repeat": 1, "control tokens": 1, "unfinished answer": 1
    }  # fmt: skip


def test_a_base_whose_rows_are_all_unfit_is_given_up(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instructions, "FIRST", 6)
    monkeypatch.setattr(instructions, "LEAST_KEPT", 0.9)
    wanted = says(KEY, rule="attempts", got="", cure=["Lower it to", "train"])
    with pytest.raises(GenerationError, check=wanted):
        write(own, 500)


OPENINGS = {
    "smollm2": ("<|im_start|>user\n", "<|im_end|>"),
    "qwen3": ("<|im_start|>user\n", "<|im_end|>"),
    "llama": ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    "gemma": ("<start_of_turn>user\n", "<end_of_turn>"),
    "phi3": ("<|user|>\n", "<|end|>"),
    "mistral_v3": ("[INST]", "[/INST]"),
    "deepseek_r1": ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_a_template_is_cut_where_the_users_text_begins(name: str) -> None:
    tokenizer = family_tokenizer(chat_template(name))
    opening, ends = users_turn(tokenizer, Renderer(tokenizer), name)
    begins, end = OPENINGS[name]
    assert tokenizer.decode(opening).endswith(begins)
    assert ends[0] == tokenizer.convert_tokens_to_ids(end)
    assert tokenizer.eos_token_id in ends


TEMPLATES = {
    "none": None,
    "nothing before": "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}",
    "no token behind": (
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q: ' + m.content + ' A: ' }}"
        "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_base_that_opens_no_turn_of_a_user_is_refused(name: str) -> None:
    tokenizer = byte_tokenizer(TEMPLATES[name])
    wanted = says("model.base", rule="chat template", got="", cure="train")
    with pytest.raises(BaseModelError, check=wanted) as error:
        users_turn(tokenizer, Renderer(tokenizer), "toy")
    assert "'toy'" in str(error.value)


def test_the_refusal_comes_before_the_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_llama(tmp_path / "base", ["some text"])
    (base / "chat_template.jinja").unlink()
    monkeypatch.setattr(instructions, "load_base", refuse)
    with pytest.raises(BaseModelError, match="chat template"):
        generate_general(str(base), 5, cache_dir=str(tmp_path))


def test_from_python_the_rows_are_a_source_of_a_data_module(own: Path) -> None:
    source = generate_general("microworld", ROWS, cache_dir=str(own))
    data = TellDataModule(
        general={"self": source},
        tokenizer="microworld",
        mixture={"arm": "general_only", "general_repeat": True},
        cache_dir=str(own),
    )
    data.prepare_data()
    data.prepared.open()
    assert len(data.prepared.rows[0]) == ROWS // 2
    assert len(data.prepared.loss_rows["test"]) == ROWS // 2
    whole = generate_general("microworld", ROWS, held_out=False, cache_dir=str(own))
    assert whole.held_out is None


def test_a_data_module_does_not_write_rows_itself() -> None:
    wanted = says(KEY, rule="written", got="5", cure="generate_general(base, 5)")
    with pytest.raises(ValueError, check=wanted):
        TellDataModule(general={"self": General(generate=5)}, tokenizer="microworld")
