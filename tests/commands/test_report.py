"""`report`: its mistakes, and that it needs no torch. The page itself: tests/report."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from messages import says

from tell_lightning.cli import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"run": {"name": "x"}}), encoding="utf-8")
    return folder


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["report", *map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_the_report_goes_into_the_run_and_its_place_is_printed(run, capsys):
    main(["report", str(run)])
    assert capsys.readouterr().out.startswith(f"Report: {run}/report.html, ")
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "report.html"]


def test_the_report_goes_where_it_is_told_to(run, tmp_path):
    for output in (["--output", str(tmp_path / "a.html")], [f"--output={tmp_path / 'b.html'}"]):
        main(["report", *output, str(run)])
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], says("report", rule="RUN", got="none")),
        (["a", "b"], says("report", got="'b'")),
        (["a", "--ouptut=b"], says("report", got="'--ouptut'", cure="'--output'")),
    ],
)
def test_one_run_is_needed(arguments, message, capsys):
    assert error(capsys, *arguments).removeprefix("error: ") == message


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert error(capsys, tmp_path) == says("error: RUN", rule="config.yaml", got=f"'{tmp_path}'")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "data: text"),
        ("plan.json", '{"cycle": [1], "sources": 3}'),
        ("plan.json", '{"algorithm": "feistel6-v1", "sources": []}'),
        ("run.json", '{"metrics": {"test": 5}}'),
    ],
)
def test_a_file_of_another_form_is_refused_and_no_page_is_written(
    run, tmp_path, capsys, name, content
):
    (run / name).write_text(content)
    page = tmp_path / "page.html"
    said = says(f"error: {run}", rule=["run.json", "plan.json", "configuration"], cure="Copy")
    assert error(capsys, run, "--output", page) == said
    assert not page.exists()


def test_an_output_that_cannot_be_written_is_named(run, tmp_path, capsys):
    for output, reason in (
        (tmp_path / "no/a.html", "No such file"),
        (run / "config.yaml" / "a.html", "Not a directory"),
        (tmp_path, "Is a directory"),
    ):
        assert error(capsys, run, "--output", output) == says(
            "error: --output", got=f"'{output}'", cure=reason
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_help_and_a_report_need_no_torch(run):
    code = (
        f"import sys\nfrom tell_lightning.cli import main\nmain(['report', {str(run)!r}])\n"
        "try:\n    main(['report', '--help'])\nfinally:\n"
        "    print({'torch', 'lightning', 'transformers', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.startswith("Report: ")
    assert "\nusage: python -m tell_lightning report [-h] [--trust] [--output FILE]" in done.stdout
    assert done.stdout.endswith("set()\n")
