"""`neural`: segments to another Python and back, with a stand-in for the package that is there."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import says

from tell_lightning.callbacks.folder import RunFolder, held, write_json
from tell_lightning.cli import main

ANCHOR = "Translate the text."
SOURCES = ["eitt tvö\nþrjú", "fjögur\nfimm sex", "sjö\nátta"]
REFERENCES = ["one two\nthree", "four\nfive six", "seven\neight"]
ANSWERS = ["one two\nthree", "four five six", "seven\nnine"]
STAND_IN = '''
"""COMET's interface: the score is the share of the reference's words that the answer has."""
from types import SimpleNamespace


class Model:
    hparams = SimpleNamespace()
    encoder = SimpleNamespace(
        max_positions=5,
        tokenizer=lambda texts: {"input_ids": [["<s>", *t.split(), "</s>"] for t in texts]},
    )

    def requires_references(self):
        return True

    def predict(self, samples, batch_size, gpus, progress_bar):
        print("Predicting: 100%")
        assert all(list(sample) == ["src", "mt", "ref"] for sample in samples)
        return {"scores": [self.score(**sample) for sample in samples]}

    def score(self, src, mt, ref):
        assert len(src.split()) == len(ref.split())
        words = ref.split()
        return sum(word in mt.split() for word in words) / len(words)


def download_model(name):
    try:
        raise OSError("[Errno -2] Name or service not known")
    except OSError:
        raise KeyError(f"Model '{name}' not supported by COMET.")


def load_from_checkpoint(path):
    text = open(path).read()
    if text == "crash":
        raise SystemExit("Killed by the stand-in")
    model = Model()
    if text == "nan":
        model.score = lambda **_: float("nan")
    return model
'''


@pytest.fixture(autouse=True)
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another environment: this Python with the stand-in; work begins in an empty folder."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "comet.py").write_text(STAND_IN)
    (packages / "torch.py").write_text("class cuda:\n    is_available = staticmethod(bool)\n")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.chdir(tmp_path)
    for name in ("good", "crash", "nan"):
        (tmp_path / f"{name}.ckpt").write_text(name)


def write(path: Path, answers: list[str] = ANSWERS, **columns: list[str]) -> Path:
    """Write a predictions file; columns are further fields."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"test.jsonl:{n + 1}", "prediction": answer, "reference": REFERENCES[n]}
        | {name: values[n] for name, values in columns.items()}
        for n, answer in enumerate(answers)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, whose test rows carry the anchor, with scores in its record."""
    rows = [
        {"query": f"{ANCHOR}\n\n{source}", "answer": reference, "bare": source}
        for source, reference in zip(SOURCES, REFERENCES, strict=True)
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"prompt": "query", "response": "answer"}
    anchor = {"text": ANCHOR, "present": True}
    task = {"test": "test.jsonl", "fields": fields, "anchor": anchor}
    other = {"test": "test.jsonl", "fields": fields}
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    data = {"root": str(tmp_path), "tasks": {"raw": other, "mt": task}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data, "model": {"base": "b"}}))
    write_json(folder / "run.json", {"status": "finished", "metrics": {"test": {"after": 1}}})
    write(folder / "predictions" / "test-mt-step-000004.jsonl")
    return folder


def score(file: Path, *options: str, model: str = "good.ckpt") -> None:
    where = [f"--python={sys.executable}", f"--model={model}"]
    main(["neural", str(file), "--metric=comet", *where, *options])


def error(capsys: pytest.CaptureFixture[str], *arguments: object, **changes: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        score(*arguments, **changes)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    return said.removeprefix("error: ")


def entry(record: Path, *path: str) -> dict[str, Any]:
    found = json.loads(record.read_text())
    for key in path:
        found = found[key]
    return found


def test_scores_go_into_the_run_and_by_row_beside_it(run, capsys):
    file = run / "predictions" / "test-mt-step-000004.jsonl"
    score(file)
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["metrics"]["test"] == {"after": 1}
    found = record["metrics"]["neural"]["test-mt-step-000004"]["comet"]
    # Row 1: lines 1 and 1. Row 2, in one piece: 1, weighing as two lines. Row 3: lines 1 and 0.
    assert found["score"] == pytest.approx(5 / 6, abs=1e-6)
    assert found["interval"] == pytest.approx([0.5, 1])
    assert (found["documents"], found["documents_in_one_piece"], found["segments"]) == (3, 1, 5)
    assert (found["limit_tokens"], found["longest_tokens"]) == (3, 5)
    assert (found["truncated_segments"], found["truncated_share"]) == (2, 0.4)
    assert found["texts"] == ["src", "mt", "ref"]
    assert found["predictions_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found["versions"]["python"].startswith("3.")
    lines = (run / "predictions" / "neural" / f"{file.stem}-comet.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == [f"test.jsonl:{n}" for n in (1, 2, 3)]
    assert [row["score"] for row in rows] == [1, 1, 0.5]
    assert [row["in_one_piece"] for row in rows] == [False, True, False]
    assert rows[0]["segment_tokens"] == [4, 3]
    assert rows[0]["segment_truncated"] == [True, False]
    screen = capsys.readouterr().out
    assert "src, mt, ref: 0.8333, 95% interval [0.5000, 1.0000]" in screen
    assert "3 documents, 1 in one piece; 5 segments, 2 truncated at 3 tokens (40.0%)" in screen
    assert f"Written to {run / 'run.json'} after" in screen
    assert not list(run.rglob(".lock"))


def test_a_second_metric_or_file_stands_beside_the_first(run):
    file = run / "predictions" / "test-mt-step-000004.jsonl"
    score(file)
    first = entry(run / "run.json", "metrics", "neural", file.stem, "comet")
    better = write(run / "predictions" / "test-mt-base.jsonl", REFERENCES)
    score(better)
    neural = entry(run / "run.json", "metrics", "neural")
    assert neural[file.stem]["comet"] == first
    assert neural["test-mt-base"]["comet"]["score"] == 1


def test_without_a_run_the_scores_lie_beside_the_file(tmp_path):
    file = write(tmp_path / "other.jsonl", source=SOURCES)
    (tmp_path / "other.neural.json").write_text('{"bleurt": {"score": 1}}')
    score(file)
    found = json.loads((tmp_path / "other.neural.json").read_text())
    assert found["bleurt"] == {"score": 1}
    assert found["comet"]["score"] == pytest.approx(5 / 6, abs=1e-6)
    assert len((tmp_path / "other.neural-comet.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("option", [(), ("--source-field=bare",)], ids=["prompt", "field"])
def test_sources_come_from_the_run_s_rows(option, run, tmp_path):
    # The file's name says nothing of the task; the stand-in has an assertion on each source.
    file = write(tmp_path / "elsewhere" / "answers.jsonl", task=["mt"] * 3)
    score(file, f"--run={run}", *option)
    assert entry(run / "run.json", "metrics", "neural", "answers", "comet")["segments"] == 5


def test_sources_are_those_of_a_resumed_run_s_last_session(run, tmp_path):
    config = (run / "config.yaml").read_text()
    (run / "config.resume-1700000000.yaml").write_text(config)
    (run / "config.yaml").write_text(config.replace("test.jsonl", "moved.jsonl"))
    score(run / "predictions" / "test-mt-step-000004.jsonl")
    assert "neural" in entry(run / "run.json", "metrics")


def test_scores_of_predictions_that_were_written_anew_do_not_stay(run):
    file = run / "predictions" / "test-mt-step-000004.jsonl"
    record = json.loads((run / "run.json").read_text())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    old = {"score": 1, "predictions_sha256": sha256, "file": file.name}
    record["metrics"]["neural"] = {file.stem: {"bleurt": old}}
    write_json(run / "run.json", record)
    score(file)
    assert set(entry(run / "run.json", "metrics", "neural", file.stem)) == {"bleurt", "comet"}
    write(file, REFERENCES)
    score(file)
    (found,) = entry(run / "run.json", "metrics", "neural", file.stem).values()
    assert found["score"] == 1


def test_no_file_takes_the_place_of_another_one_of_its_name(run, tmp_path, capsys):
    here, there = (
        write(tmp_path / name / "mine.jsonl", task=["mt"] * 3) for name in ("here", "there")
    )
    own = write(tmp_path / "test-mt-step-000004.jsonl")
    score(here, f"--run={run}")
    score(here, f"--run={run}")
    assert entry(run / "run.json", "metrics", "neural", "mine", "comet", "file") == str(here)
    before = (run / "run.json").read_bytes()
    for file, other in ((there, here), (own, run / "predictions" / own.name)):
        assert error(capsys, file, f"--run={run}") == says(str(file), cure=str(other))
    assert (run / "run.json").read_bytes() == before


def test_rows_that_the_run_does_not_have_are_named(run, tmp_path, capsys):
    file = write(tmp_path / "answers.jsonl")
    file.write_text(file.read_text().replace('"seven', '"eleven').replace("jsonl:1", "jsonl:9"))
    assert error(capsys, file, f"--run={run}") == says(
        str(file),
        rule="COMET",
        got="none of 'test.jsonl:9' (2 of 3 rows)",
        cure="'source'",
    )
    assert error(capsys, write(file), f"--run={run}", "--source-field=no") == says(
        str(file),
        rule="COMET",
        got="none of 'test.jsonl:1' (3 of 3 rows)",
        cure=["'no'", "--source-field"],
    )


def test_sources_that_are_nowhere_are_asked_for(tmp_path, capsys):
    file = write(tmp_path / "other.jsonl", source=["x", "", "y"])
    assert error(capsys, file) == says(
        str(file),
        rule="COMET",
        got="none of 'test.jsonl:2' (1 of 3 rows)",
        cure=["'source'", "--source-field", "--run"],
    )


def test_a_run_in_training_is_left_alone(run, capsys):
    before = (run / "run.json").read_bytes()
    with held(RunFolder(run)):
        said = error(capsys, run / "predictions" / "test-mt-step-000004.jsonl")
    assert said == says("RUN", got=f"'{run}'")
    assert (run / "run.json").read_bytes() == before


def test_what_the_other_environment_lacks_is_named(tmp_path, capsys, monkeypatch):
    file = write(tmp_path / "other.jsonl", source=SOURCES)
    make = [
        "python -m venv .venv-comet && .venv-comet/bin/pip install unbabel-comet 'setuptools<81'",
        "docs/neural-metrics.md",
    ]
    for python, reason, model in (
        (".venv-comet/bin/python", "No such file or directory", {}),
        ("/bin/false", "1", {}),
        (sys.executable, "Killed by the stand-in", {"model": "crash.ckpt"}),
    ):
        assert error(capsys, file, f"--python={python}", **model) == says(
            "--python", rule="comet", got=f"'{python}'", cure=[reason, *make]
        )
    assert error(capsys, file, model="Unbabel/none") == says(
        "--model",
        rule="comet",
        got="'Unbabel/none'",
        cure=["\"Model 'Unbabel/none' not supported by COMET.\"", "OSError: [Errno -2]"],
    )
    assert error(capsys, file, model="nan.ckpt") == says("--model", got="[nan, nan, nan, nan, nan]")
    monkeypatch.delenv("PYTHONPATH")
    assert error(capsys, file) == says(
        "--python", got=f"'{sys.executable}'", cure=["No module named 'comet'", *make]
    )
    assert "'transformers<5' protobuf" in error(capsys, file, "--metric=bleurt")
    assert sorted(path.name for path in tmp_path.glob("other*")) == ["other.jsonl"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["more.jsonl"], says("neural", got="'more.jsonl'")),
        (["--frob"], says("neural", got="'--frob'")),
        (["--metrc=comet"], says("neural", got="'--metrc'", cure="'--metric'")),
        (["--metric=bertscore"], says("--metric", rule=["comet", "bleurt"], got="'bertscore'")),
        (["--batch-size=0"], says("--batch-size", rule=["1", "9"], got="'0'")),
        (["--batch-size=many"], says("--batch-size", rule=["1", "9"], got="'many'")),
        (["--run=nowhere"], says("RUN", rule="config.yaml", got="'nowhere'")),
    ],
)
def test_a_wrong_command_line_is_named(options, message, tmp_path, capsys):
    file = tmp_path / "other.jsonl"
    assert error(capsys, file, *options) == message


def test_rows_without_a_reference_are_named(tmp_path, capsys):
    file = write(tmp_path / "other.jsonl", source=SOURCES, reference=["a", " ", "b"])
    assert error(capsys, file) == says(str(file), got="' '", cure="'test.jsonl:2'")


def test_help_needs_no_torch():
    code = (
        "import sys\nfrom tell_lightning.cli import main\n"
        "try:\n    main(['neural', '--help'])\n"
        "finally:\n    print({'torch', 'lightning', 'transformers'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment
    )
    assert done.stdout.startswith("usage: python -m tell_lightning neural ")
    assert "--metric {comet,bleurt}" in done.stdout
    assert done.stdout.endswith("set()\n")


# The packages themselves: PYTHON is that of an environment made as docs/neural-metrics.md says.

TINY = Path(__file__).with_name("tiny_neural_models.py")


@pytest.mark.long
@pytest.mark.parametrize("metric", ["comet", "bleurt"])
def test_the_package_itself_gives_the_same_mean(metric, tmp_path, monkeypatch):
    variable = f"TELL_{metric.upper()}_PYTHON"
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"Requires: [{variable}, the Python of an environment with {metric}]")
    monkeypatch.delenv("PYTHONPATH")
    model = tmp_path / "model"
    made = subprocess.run(
        [python, TINY, metric, model], capture_output=True, check=False, text=True
    )
    assert made.returncode == 0, made.stderr
    lines = ["The red cat sees the moon.", "The old fox " * 300, "The small dog hears the mat."]
    texts = [{"mt": text, "ref": lines[0], "src": lines[2]} for text in lines]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    rows = [
        {"id": str(n), "prediction": t["mt"], "reference": t["ref"], "source": t["src"]}
        for n, t in enumerate(texts)
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    score(file, f"--metric={metric}", f"--python={python}", "--batch-size=2", model=str(model))
    found = entry(tmp_path / "answers.neural.json", metric)
    theirs = subprocess.run(
        [python, TINY, f"{metric}_mean", model, tmp_path / "texts.json"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert found["score"] == pytest.approx(float(theirs.stdout.split()[-1]), abs=1e-5)
    assert (found["segments"], found["truncated_segments"]) == (3, 1)
    assert found["limit_tokens"] == {"comet": 510, "bleurt": 512}[metric]
