"""Files that run an experiment's cells on a cluster: a SLURM array, or a W&B sweep.

Both run each cell with the command line that runs it here, `experiment ... --cell NAME`.
"""

import shlex
from collections.abc import Sequence

import yaml


def array_script(
    name: str, directory: str, command: Sequence[str], numbers: Sequence[int], *, results: str
) -> str:
    """Return an sbatch script with one task for each cell.

    Args:
        name: Name of the experiment.
        directory: Folder in which the command line is run.
        command: The command line, up to the cell.
        numbers: Places of the cells to run among all cells.
        results: Folder for the tasks' output.
    """
    line = shlex.join([*command, "--jobs", "1", "--cell"])
    return f"""#!/bin/bash
#SBATCH --job-name=tell-{name}
#SBATCH --array={ranges(numbers)}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=01:00:00
#SBATCH --output={results}/.slurm-%A-%a.log
# For a large base: --gres=gpu:1 and more of --cpus-per-task, --mem and --time.
# Each task is one run. To run what is left: `experiment ... --slurm` again, and submit that script.
set -e
cd {shlex.quote(directory)}
# Each task is a run of its own: Lightning must not take the array's tasks for its ranks.
unset SLURM_NTASKS
exec {line} "$SLURM_ARRAY_TASK_ID"
"""


def sweep(name: str, project: str, command: Sequence[str], cells: Sequence[str]) -> str:
    """Return a W&B sweep over the names of the cells, each of which an agent runs once.

    Args:
        name: Name of the experiment.
        project: Project of W&B.
        command: The command line, up to the cell.
        cells: Names of the cells to run.
    """
    values = {
        "name": name,
        "project": project,
        "method": "grid",
        "parameters": {"cell": {"values": list(cells)}},
        "command": [*command, "--jobs", "1", "--wandb", "${args}"],
    }
    return yaml.safe_dump(values, sort_keys=False, width=1000)


def ranges(numbers: Sequence[int]) -> str:
    """Format whole numbers as SLURM does.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
