import shutil
import subprocess
from pathlib import Path

import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from tell_lightning.experiment.cluster import array_script, sweep

COMMAND = ["/usr/bin/python", "-m", "tell_lightning", "experiment", "/a b/first", "-c", "x.yaml"]


def test_an_array_has_a_task_for_each_cell_and_is_a_script_that_bash_reads(tmp_path: Path) -> None:
    text = array_script("first", "/my dir", COMMAND, [0, 1, 2, 7], results="/r")
    path = tmp_path / "array.sh"
    path.write_text(text)
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "#SBATCH --array=0-2,7\n" in text
    assert "#SBATCH --output=/r/.slurm-%A-%a.log\n" in text
    assert "cd '/my dir'\n" in text
    assert text.splitlines()[-1] == (
        "exec /usr/bin/python -m tell_lightning experiment '/a b/first' -c x.yaml --jobs 1 --cell "
        '"$SLURM_ARRAY_TASK_ID"'
    )
    options = [line for line in text.splitlines()[1:] if line.startswith("#SBATCH")]
    assert text.splitlines()[1 : 1 + len(options)] == options  # sbatch reads no further


def test_a_sweep_goes_over_the_names_of_the_cells() -> None:
    values = yaml.safe_load(sweep("first", "mine", COMMAND, ["a-n1-s0", "a-n1-s1"]))
    assert values == {
        "name": "first",
        "project": "mine",
        "method": "grid",
        "parameters": {"cell": {"values": ["a-n1-s0", "a-n1-s1"]}},
        "command": [*COMMAND, "--jobs", "1", "--wandb", "${args}"],
    }


def test_an_agent_names_the_cell_as_the_command_line_takes_it() -> None:
    flags = create_sweep_command_args({"args": {"cell": {"value": "a-n1-s0"}}})
    assert flags["args"] == ["--cell=a-n1-s0"]
