"""The table of robustness: each case counts, and the committed table is that of the results."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "experiments/robustness"


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        spec = importlib.util.spec_from_file_location("robustness_run", FOLDER / "run.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        for name in [name for name in sys.modules if name.partition(".")[0] == "cases"]:
            del sys.modules[name]


def test_every_case_belongs_to_a_line_and_has_an_input_of_its_own(runner):
    cases = [case for topic in runner.found(FOLDER, None).values() for case in topic]
    assert {case.line for case in cases} <= runner.FAULTS.keys()
    assert len({(case.line, case.input) for case in cases}) == len(cases)


def test_an_unknown_topic_is_refused_with_the_known_ones(runner):
    with pytest.raises(SystemExit, match="experiment"):
        runner.found(FOLDER, "no-such-topic")


def test_a_case_sees_what_the_command_wrote(runner, tmp_path):
    (tmp_path / "box").mkdir()
    outcome = runner.Box(tmp_path / "box").call("fly")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: command line: ")


def test_a_case_that_breaks_is_wrong(runner, tmp_path):
    def broken(box):
        raise ValueError("no such key\nmore")

    (found,) = runner.tried({"files": [runner.Case(5, "an input", broken)]}, tmp_path)
    assert not found["right"]
    assert found["did"] == "the case ended with ValueError: no such key"


def test_the_table_is_that_of_the_committed_results(runner):
    results = json.loads(runner.RESULTS.read_text(encoding="utf-8"))
    table = runner.README.read_text(encoding="utf-8").partition("<!-- table -->")[2]
    assert table == f"\n\n{runner.table(results)}\n\n{runner.summary(results)}\n"
    assert len(re.findall(r"^\| \d", table, re.MULTILINE)) == len(results)
