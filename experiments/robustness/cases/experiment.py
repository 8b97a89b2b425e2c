"""Cases that the fuzz tests found: damaged files and configurations of another form."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from robustness import Box, Result, case

ROWS = [{"prompt": f"Say {n}.", "response": f"It is {n}."} for n in range(40)]
CONFIG = """
data:
  root: .
  tasks: {{say: {{train: {rows}}}}}
  mixture: {{arm: sft, task_examples: 8}}
  optimizer_batch: 8
  micro_batch: 8
model: {{base: microworld}}
trainer: {{max_steps: 2}}
"""


@case(line=31, input="a Parquet file with a damaged page, whose reader tells of it in two lines")
def damaged_parquet(box: Box) -> Result:
    """Cut bytes out of the first page."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    content = sink.getvalue()
    box.write("rows.parquet", content[:4] + b"\xff" * 40 + content[44:])
    box.write("mine.yaml", CONFIG.format(rows="rows.parquet"))
    outcome = box.call("plan", "-c", "mine.yaml")
    right = outcome.refused("rows.parquet", "undamaged")
    return Result("named the file in one line" if right else outcome.last_line, right)


@case(line=32, input="`data:` with all its keys commented out")
def empty_group(box: Box) -> Result:
    """Leave a section without keys."""
    box.write("mine.yaml", "data:\n#  root: here\ntrainer:\n  max_steps: 3\n")
    outcome = box.call("plan", "-c", "mine.yaml")
    right = outcome.refused("mine.yaml: data: ", "got nothing")
    return Result("named file and section in one line" if right else outcome.last_line, right)


@case(line=31, input="a run folder whose run.json has another form")
def damaged_run(box: Box) -> Result:
    """Ask for a report."""
    box.write("run/config.yaml", "data: {tasks: {say: {train: rows.jsonl}}}\n")
    box.write("run/run.json", json.dumps({"status": "completed", "metrics": {"test": 5}}))
    outcome = box.call("report", "run", "--output", "page.html")
    right = outcome.refused("run.json", "Copy the run's folder again")
    right = right and not (box.folder / "page.html").exists()
    return Result("refused in one line, no page written" if right else outcome.last_line, right)


@case(line=32, input="a NUL character in a folder's name")
def null_character(box: Box) -> Result:
    """Write it as YAML can."""
    box.jsonl("rows.jsonl", ROWS)
    box.write("mine.yaml", CONFIG.format(rows="rows.jsonl") + 'run: {dir: "runs\\0"}\n')
    outcome = box.call("plan", "-c", "mine.yaml")
    right = outcome.refused("run.dir", "Unicode")
    return Result("named the key in one line" if right else outcome.last_line, right)
