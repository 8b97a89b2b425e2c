"""The tables of train.md, from the results of `train.py`."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from train_contenders import CONTENDERS

Result = Mapping[str, Any]

GOALS = {"bare": 0.9, "trl": 4.5, "memory": 0.6}
"""Ours over the bare loop and over TRL's best, and its memory over that of TRL's best."""
GPU_GOALS = {"1.5B": 0.40, "7B": 0.45}
"""Share of the rate of a matrix product, by 4 operations for each parameter and token."""
GPU_TOKENS, GPU_MEMORY = {"135M": 100_000}, 0.7
CPU_COLUMNS = (
    "tokens/s",
    "ours over it",
    "peak memory, MiB",
    "ours over it",
    "first step, s",
    "loss at step 1",
    "at the last",
    "off ours",
)
GPU_COLUMNS = (
    "tokens/s",
    "of the matrix product",
    "peak memory, GiB",
    "ours over it",
    "first step, s",
    "loss at the last step",
    "off ours",
)


def rate(result: Result) -> float:
    """Return tokens per second, over all timed steps."""
    return float(sum(result["tokens"]) / sum(result["seconds"]))


def ratios(one: Result, other: Result) -> list[float]:
    """Return one speed over another in each round, ascending."""
    rounds = zip(one["tokens"], one["seconds"], other["tokens"], other["seconds"], strict=True)
    return sorted(a / b / (c / d) for a, b, c, d in rounds)


def spread(values: list[float]) -> str:
    """Show the median of ascending values, and the outermost ones."""
    return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"


def told(result: Result) -> str:
    """Say in a few words how fast a contender was, or why it failed."""
    if "failed" in result:
        return f"failed, {result['failed']}"
    return f"{rate(result):,.0f} a second, {result['peak_bytes'] / 2**30:.2f} GiB"


def losses(result: Result) -> list[float]:
    """Return the first and the last loss."""
    values = list(result["losses"].values())
    return [values[0], values[-1]]


def off(name: str, result: Result, ours: Result) -> str:
    """Show by how much the last loss is off ours, or that it cannot be compared."""
    if name == "ours":
        return ""
    if CONTENDERS[name].other_rows:
        return "other rows"
    return f"{losses(result)[1] / losses(ours)[1] - 1:+.2%}"


def best(contenders: Mapping[str, Result], library: str) -> str | None:
    """Return the name of a library's fastest configuration."""
    ran = [name for name, of in contenders.items() if name.startswith(library) and "tokens" in of]
    return max(ran, key=lambda name: rate(contenders[name]), default=None)


def table(columns: Iterable[str], rows: Iterable[list[str]]) -> str:
    """Return a table in Markdown."""
    head = ["", *columns]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    lines += [[*row, *[""] * (len(head) - len(row))] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cpu_row(name: str, contenders: Mapping[str, Result]) -> list[str]:
    """Return the row of a contender on a CPU."""
    label, result, ours = CONTENDERS[name].label, contenders[name], contenders.get("ours", {})
    if "failed" in result:
        return [f"{label}: failed, {result['failed']}"]
    row = [label, f"{rate(result):,.0f}", "", f"{result['peak_bytes'] / 2**20:,.0f}", ""]
    row += [f"{result['first_step_seconds']:.0f}", *(f"{loss:.4f}" for loss in losses(result))]
    if "tokens" in ours and name != "ours":
        row[2] = spread(ratios(ours, result))
        row[4] = f"{ours['peak_bytes'] / result['peak_bytes']:.2f}"
        row.append(off(name, result, ours))
    return row


def gpu_row(name: str, contenders: Mapping[str, Result], parameters: int) -> list[str]:
    """Return the row of a contender on a GPU."""
    label, result, ours = CONTENDERS[name].label, contenders[name], contenders.get("ours", {})
    if "failed" in result:
        return [f"{label}: failed, {result['failed']}"]
    product = contenders.get("matmul", {})
    share = f"{4 * parameters * rate(result) / rate(product):.0%}" if "tokens" in product else ""
    row = [label, f"{rate(result):,.0f}", share, f"{result['peak_bytes'] / 2**30:.1f}", ""]
    row += [f"{result['first_step_seconds']:.0f}", f"{losses(result)[1]:.4f}"]
    if "tokens" in ours and name != "ours":
        row[4] = f"{ours['peak_bytes'] / result['peak_bytes']:.2f}"
        row.append(off(name, result, ours))
    return row


def answers_row(name: str, contenders: Mapping[str, Result]) -> list[str]:
    """Return the row of a way to generate answers."""
    result, ours = contenders[name], contenders.get("generate_ours", {})
    row = [CONTENDERS[name].label, told(result)]
    if name != "generate_ours" and "tokens" in ours and "tokens" in result:
        row.append(f"{rate(ours) / rate(result):.2f}")
    return row


def cpu_goals(contenders: Mapping[str, Result]) -> str:
    """Say how the goals on a CPU are met."""
    ours, trl = contenders.get("ours", {}), best(contenders, "trl")
    lines = []
    if "tokens" in ours and "tokens" in contenders.get("bare", {}):
        found = spread(ratios(ours, contenders["bare"]))
        lines.append(f"Ours over the bare loop: {found}, goal {GOALS['bare']}.")
    if "tokens" in ours and trl:
        share = ours["peak_bytes"] / contenders[trl]["peak_bytes"]
        lines.append(
            f"Ours over TRL's best ({CONTENDERS[trl].label}): "
            f"{spread(ratios(ours, contenders[trl]))}, goal {GOALS['trl']}; "
            f"memory {share:.2f} of its, goal {GOALS['memory']}."
        )
    return "\n".join(lines)


def facts(case: Mapping[str, Any]) -> str:
    """Say what was measured, where, and with which versions."""
    job, git, host = case["job"], case["git"] or {"commit": "unknown"}, case["machine"]
    return (
        f"{job['batch']} bins of {job['capacity']:,} tokens a step, {job['steps'] - job['warm']} "
        f"timed steps; rank {job['rank']}, {'bfloat16' if job['bfloat16'] else 'float32'}"
        f"{', activations computed again' if job['checkpointing'] else ''}; "
        f"{case['parameters'] / 1e6:,.1f} million parameters in the layers; "
        f"{', '.join(host['gpus']) or host['processor']}; commit {git['commit'][:10]}. "
        f"{versions(case['contenders'])}."
    )


def versions(contenders: Mapping[str, Result]) -> str:
    """Name the versions of packages, and the contenders that had them."""
    users: dict[str, list[str]] = {}
    for name, result in contenders.items():
        if found := result.get("versions"):
            text = ", ".join(f"{package} {number}" for package, number in found.items())
            users.setdefault(text, []).append(CONTENDERS[name].label)
    return "; ".join(f"{', '.join(dict.fromkeys(who))}: {text}" for text, who in users.items())


def cpu_block(cases: Mapping[str, Any]) -> str:
    """Return the tables of all bases on a CPU."""
    parts = []
    for name, case in cases.items():
        ran = [each for each in CONTENDERS if each in case["contenders"]]
        rows = [cpu_row(each, case["contenders"]) for each in ran]
        parts += [f"**{name}**", table(CPU_COLUMNS, rows), cpu_goals(case["contenders"])]
        parts.append(facts(case))
    return "\n\n".join(filter(None, parts))


def gpu_block(cases: Mapping[str, Any]) -> str:
    """Return the tables of all shapes on a GPU, and those of generation."""
    if not cases:
        return "Not measured yet: no GPU was at hand."
    product = next(
        (c["contenders"]["matmul"] for c in cases.values() if "matmul" in c["contenders"]), {}
    )
    parts = [f"Matrix product: {rate(product) / 1e12:,.0f} TFLOP/s." if "tokens" in product else ""]
    for name, case in cases.items():
        ran = {**case["contenders"], "matmul": product}
        modules = {each: CONTENDERS[each].module for each in case["contenders"]}
        training = [each for each, of in modules.items() if of not in {"matmul", "generation"}]
        answers = [each for each, of in modules.items() if of == "generation"]
        rows = [gpu_row(each, ran, case["parameters"]) for each in training]
        parts += [f"**{name}**", table(GPU_COLUMNS, rows), gpu_goals(name, ran, case["parameters"])]
        if answers:
            rows = [answers_row(each, ran) for each in answers]
            parts.append(table(("answers: tokens, peak memory", "ours over it"), rows))
        parts.append(facts(case))
    return "\n\n".join(filter(None, parts))


def gpu_goals(name: str, contenders: Mapping[str, Result], parameters: int) -> str:
    """Say how the goals on a GPU are met."""
    ours, trl, product = contenders.get("ours", {}), best(contenders, "trl"), contenders["matmul"]
    if "tokens" not in ours:
        return ""
    lines = []
    if name in GPU_GOALS and "tokens" in product:
        share = 4 * parameters * rate(ours) / rate(product)
        lines.append(f"Ours: {share:.0%} of the matrix product, goal {GPU_GOALS[name]:.0%}.")
    if name in GPU_TOKENS:
        lines.append(f"Ours: {rate(ours):,.0f} tokens/s, goal {GPU_TOKENS[name]:,}.")
    if trl:
        share = ours["peak_bytes"] / contenders[trl]["peak_bytes"]
        lines.append(
            f"Memory of ours over that of {CONTENDERS[trl].label}: {share:.2f}, goal {GPU_MEMORY}."
        )
    return "\n".join(lines)


def blocks(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the blocks of train.md by name."""
    cpu, gpu = results.get("cpu", {}), results.get("gpu", {})
    return {"cpu": cpu_block(cpu) or "Not measured yet.", "gpu": gpu_block(gpu)}
