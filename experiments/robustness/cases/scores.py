"""Scores that mislead: scripts without spaces, references that cannot be scored, labels, chat."""

import json
from collections.abc import Sequence
from typing import Any

import yaml
from robustness import Box, Result, case, run_folder

CHINESE = ["她每天早上六点起床跑步。", "火车站离这里不太远。", "请把这封信交给老师。"]
LABELS = ["spam", "ham", "news", "spam"]


def predictions(box: Box, name: str, answers: Sequence[str], references: Sequence[str]) -> str:
    """Write a predictions file that lies in no run."""
    pairs = zip(answers, references, strict=True)
    rows = ({"id": str(n), "prediction": a, "reference": r} for n, (a, r) in enumerate(pairs))
    return str(box.jsonl(name, rows))


def compared(box: Box, *args: str) -> dict[str, Any]:
    """Compare two files, and return the lines by the name of the score."""
    done = box.call("compare", *args, "--format", "jsonl")
    return {line["score"]: line for line in map(json.loads, done.out.splitlines())}


def config(box: Box, scoring: dict[str, Any], responses: Sequence[str], **sections: Any) -> str:
    """Write a configuration of one task with the same responses in train, dev and test."""
    for split in ("train", "dev", "test"):
        rows = enumerate(responses)
        box.jsonl(f"{split}.jsonl", [{"prompt": f"{split} {n}", "response": r} for n, r in rows])
    task = {split: f"{split}.jsonl" for split in ("train", "dev", "test")}
    values = {
        "run": {"name": "mine", "dir": str(box.folder / "runs")},
        "data": {
            "root": str(box.folder),
            "cache_dir": str(box.folder / "cache"),
            "tasks": {"mine": {**task, "scoring": scoring, "max_new_tokens": 8}},
            "general": {},
            "mixture": {"arm": "sft", "task_share": None, "task_examples": None},
            "optimizer_batch": 4,
            "micro_batch": 4,
        },
        "model": {"base": "microworld"},
        "eval": {"anchor_check": False},
        "trainer": {"max_steps": 1, "accelerator": "cpu", "devices": 1},
    }
    return str(box.write("mine.yaml", yaml.safe_dump(values | sections)))


@case(line=1, input="Chinese answers, right and senseless, in `compare --kind translation`")
def chinese(box: Box) -> Result:
    """BLEU tells them apart, by sacreBLEU's tokenizer for Chinese."""
    good = predictions(box, "good.jsonl", CHINESE, CHINESE)
    bad = predictions(box, "bad.jsonl", ["香蕉香蕉香蕉。"] * 3, CHINESE)
    bleu = compared(box, bad, good, "--kind", "translation")["bleu"]
    right = bleu["a"] < 10 and bleu["b"] > 99 and "tok:zh" in bleu["signature"]
    return Result(f"BLEU {bleu['a']:.1f} and {bleu['b']:.1f}, {bleu['signature']}", right)


@case(line=1, input="answers in decomposed characters (NFD), references in composed ones (NFC)")
def decomposed(box: Box) -> Result:
    """They are equal."""
    import unicodedata

    texts = ["Tôi sống ở Hà Nội.", "Cà phê này rất đậm."]
    written = [unicodedata.normalize("NFD", text) for text in texts]
    paths = [predictions(box, f"{n}.jsonl", each, texts) for n, each in enumerate((written, texts))]
    found = compared(box, *paths, "--kind", "translation")
    scores = found["exact_match"]["a"], found["bleu"]["a"]
    return Result(f"exact match {scores[0]:.2f}, BLEU {scores[1]:.1f}", scores[0] == 1)


@case(line=24, input="a test reference that is no JSON, for scoring.kind: json")
def reference_without_json(box: Box) -> Result:
    """It is refused by `plan`, in one line."""
    done = box.call("plan", "-c", config(box, {"kind": "json"}, ['{"a": 1}', "a = 1"]))
    last = done.err.splitlines()[-1]
    named = last.startswith("error: data.tasks.mine.dev: row") and "must be JSON" in last
    return Result(f"exit code {done.code}: {last}", done.code == 2 and named)


@case(line=24, input="answers of one word each, scored by BLEU")
def one_word(box: Box) -> Result:
    """Perfect answers have a BLEU of 0, which cannot choose an adapter."""
    done = box.call("plan", "-c", config(box, {"kind": "translation"}, ["yes", "no"]))
    last = done.err.splitlines()[-1]
    right = done.code == 2 and "scoring.primary" in last and "chrf" in last
    return Result(f"exit code {done.code}: {last}", right)


@case(line=25, input="plain labels as the responses of scoring.kind: judge")
def plain_labels(box: Box) -> Result:
    """They are refused before training, for a judge answers in JSON."""
    done = box.call("plan", "-c", config(box, {"kind": "judge"}, ["yes", "no"]))
    last = done.err.splitlines()[-1]
    right = done.code == 2 and "data.tasks.mine.train" in last and "classification" in last
    return Result(f"exit code {done.code}: {last}", right)


@case(line=25, input="three labels in `compare`, outside a run, one answer with an unknown label")
def three_labels(box: Box) -> Result:
    """The labels are those of the references; an unknown one is unreadable."""
    first = predictions(box, "a.jsonl", ["Spam.", "ham", "weather", "ham"], LABELS)
    second = predictions(box, "b.jsonl", LABELS, LABELS)
    found = compared(box, first, second, "--kind", "classification")
    scores = {name: found[name]["a"] for name in ("accuracy", "label_valid")}
    right = scores == {"accuracy": 0.5, "label_valid": 0.75} and found["accuracy"]["b"] == 1
    return Result(f"{scores}", right)


@case(line=25, input="predict with the adapter folder alone, of a classification")
def adapter_alone(box: Box) -> Result:
    """It says the same as `predict --run`."""
    path = config(box, {"kind": "classification"}, LABELS)
    box.call("fit", "-c", path, "--eval.before=false")
    run, rows = run_folder(box), str(box.folder / "test.jsonl")
    seen = [
        box.call("predict", *model, "--input", rows).out.splitlines()
        for model in (["--run", str(run)], ["--adapter", str(run / "adapter")])
    ]
    right = len(seen[0]) == 4 and seen[0] == seen[1] and "label" in json.loads(seen[1][0])
    return Result(f"{len(seen[1])} lines, equal: {seen[0] == seen[1]}", right)


@case(line=33, input="a run whose base is to be watched by chat prompts (eval.probe: true)")
def chat_probe(box: Box) -> Result:
    """The run says how the loss of the base's own answers moved, and how many are unchanged."""
    path = config(box, {"kind": "text"}, ["one", "two"])
    done = box.call("fit", "-c", path, "--eval.probe=true")
    record = json.loads((run_folder(box) / "run.json").read_text(encoding="utf-8"))
    probes = [record["metrics"]["test"][moment]["probe"] for moment in ("before", "after")]
    right = probes[0]["unchanged"] == 1 and "chat: 100 short prompts" in done.out
    told = " -> ".join(f"loss {p['loss']:.2f}, unchanged {p['unchanged']:.0%}" for p in probes)
    return Result(told, right)
