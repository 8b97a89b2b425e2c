"""The notebooks: committed without outputs, and run from start to end as a stranger runs them."""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import nbformat
import pytest
from nbformat import NotebookNode
from small_experiments import write_experiments

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
ABSOLUTE = re.compile(r"(?<![\w.~/}])/(?:home|root|Users|tmp|work|mnt|opt|usr|var)/|\b[A-Z]:\\")


def read(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / name, as_version=nbformat.NO_CONVERT)


def test_there_are_notebooks():
    assert NAMES == [
        "01_quickstart.ipynb",
        "02_does_tell_help.ipynb",
        "03_python_api.ipynb",
    ]


@pytest.mark.parametrize("name", NAMES)
class TestCommitted:
    def test_it_is_a_valid_notebook(self, name):
        notebook = read(name)
        nbformat.validate(notebook)
        assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
        assert notebook.metadata == METADATA

    def test_it_holds_no_outputs_and_no_traces_of_a_run(self, name):
        for cell in read(name).cells:
            assert cell.metadata == {}
            assert re.fullmatch(r"[a-z-]+", cell.id)
            if cell.cell_type == "code":
                assert cell.outputs == []
                assert cell.execution_count is None

    def test_it_names_no_place_of_one_machine(self, name):
        assert [cell.id for cell in read(name).cells if ABSOLUTE.search(cell.source)] == []

    def test_its_links_lead_somewhere(self, name):
        texts = [cell.source for cell in read(name).cells if cell.cell_type == "markdown"]
        links = [link for text in texts for link in re.findall(r"\]\(([^)#]+)", text)]
        files = [link for link in links if "://" not in link]
        assert files
        assert [link for link in files if not (FOLDER / link).exists()] == []

    def test_it_is_written_as_nbformat_writes(self, name):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert text == nbformat.writes(read(name)) + "\n"


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder whose path is short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="tell-") as folder:
        yield Path(folder)


def run(name: str, cwd: Path, home: Path, sockets: Path, **variables: str) -> str:
    """Run a notebook with this Python, sockets in place of a network; return what it printed."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "PYTEST", "WANDB"))}
    if kept.pop("PYTHONDONTWRITEBYTECODE", None):  # each command would compile all it imports
        kept["PYTHONPYCACHEPREFIX"] = str(home / "bytecode")
    environment = {
        **kept,
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "jupyter"),
        "MPLCONFIGDIR": mpl.get_configdir(),  # its list of fonts takes seconds
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    manager = AsyncKernelManager(
        kernel_name="python3",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # none of the user's: this Python
        transport="ipc",
        connection_file=str(sockets / "kernel.json"),
    )
    assert manager.kernel_spec.argv[0] == sys.executable
    notebook = read(name)
    place = {"metadata": {"path": str(cwd)}}
    client = NotebookClient(
        notebook, km=manager, startup_timeout=300, resources=place, coalesce_streams=True
    )
    client.execute(cleanup_kc=True, env=environment)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(each.text for each in outputs if each.output_type == "stream")
    assert not re.search(r"^(error:|Traceback)|Warning", printed, re.M), printed
    return printed


@pytest.mark.long
def test_the_quickstart_ends_with_a_scored_adapter_its_answers_and_what_a_server_needs(
    tmp_path, sockets
):
    printed = run("01_quickstart.ipynb", tmp_path, tmp_path / "home", sockets)
    (folder,) = (tmp_path / "quickstart" / "runs").iterdir()
    scores = json.loads((folder / "run.json").read_text(encoding="utf-8"))["metrics"]["test"]
    bleu = [scores[when]["tasks"]["translate"]["values"]["bleu"] for when in ("before", "after")]
    assert bleu[0] < 10 < 30 < bleu[1]
    assert f"{bleu[1]:5.1f}" in printed
    assert "Prompts: 80 of 80 rows of translate have the tokens of `predict`" in printed
    assert (tmp_path / "quickstart/velsk/chat_template.jinja").is_file()
    assert (folder / "report.html").is_file()
    assert len((tmp_path / "quickstart" / "answers.jsonl").read_text("utf-8").splitlines()) == 3


@pytest.mark.long
def test_the_parts_are_used_from_python(tmp_path, sockets):
    printed = run("03_python_api.ipynb", tmp_path, tmp_path / "home", sockets)
    scored = re.findall(r"^step +(\d+)  (\w+) +BLEU +([\d.]+)", printed, re.M)
    assert [split for _, split, _ in scored] == ["test", "dev", "dev", "dev", "test"]
    assert float(scored[0][2]) < 10 < 25 < float(scored[-1][2])
    assert (tmp_path / "python_api/adapter/anchor.json").is_file()
    assert re.search(r"after (30|60|90) steps$", printed, re.M)
    assert "steps: 4" in printed


@pytest.mark.long
def test_results_that_are_there_are_read_and_the_others_are_named(tmp_path, sockets):
    def is_missing(cell):
        few = cell.testbed == "translate" and cell.n > 100 and cell.seed > 4
        return few or cell.testbed == "compose" or (cell.testbed == "judge" and cell.arm == "sft")

    write_experiments(tmp_path / "experiments", leave_out=is_missing)
    (tmp_path / "notebooks").mkdir()
    printed = run("02_does_tell_help.ipynb", tmp_path / "notebooks", tmp_path / "home", sockets)
    assert re.search(r"^same_data +\d+ of +\d+ runs +missing: .* is missing", printed, re.M)
    assert re.search(r"^Translate: SFT reaches .* at n \d+; DER .*, \d+ seeds$", printed, re.M)
    assert "Judge: TELL and SFT at n = 10 have no seed in common yet." in printed
    assert "Compose: nothing yet of tell" in printed
    assert re.search(r"^  - translate: none; translate-\S+ is missing", printed, re.M)
    assert re.search(r"^  - translate: [a-z]+; TELL - Mix without anchor \+", printed, re.M)
    assert "compare: 32 runs" in printed


@pytest.mark.long
def test_the_committed_results_are_read(tmp_path, sockets):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "notebooks").mkdir()
    printed = run("02_does_tell_help.ipynb", tmp_path / "notebooks", tmp_path / "home", sockets)
    assert re.search(r"^same_data +\d+ of +\d+ runs", printed, re.M)
    assert "compare: 32 runs" in printed
