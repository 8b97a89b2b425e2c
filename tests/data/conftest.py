"""A byte-level tokenizer made on the spot, the real data, and files of rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
# The machine may be busy with other things: time says nothing about a property.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[[str | None], Any]:
    """The function that makes a byte-level tokenizer with a chat template."""
    from tiny_tokenizers import byte_tokenizer  # it imports transformers

    return byte_tokenizer


@pytest.fixture(scope="session")
def runs_z() -> Callable[[Any], float]:
    """Return the Wald-Wolfowitz runs test: z of the number of runs in a sequence of truth values.

    Below 0 the values clump, above 0 they alternate too regularly.
    """

    def z(flags: Any) -> float:
        size, ones = len(flags), int(flags.sum())
        product = 2 * ones * (size - ones)
        variance = product * (product - size) / (size**2 * (size - 1))
        runs = 1 + int((flags[1:] != flags[:-1]).sum())
        return float((runs - 1 - product / size) / variance**0.5)

    return z


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of the real data, or skip."""
    if not SHARED.is_dir():
        pytest.skip("Requires: shared/data")
    return SHARED


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes rows, or lines given as text, to a JSON Lines file."""

    def write(*rows: object, name: str = "rows.jsonl") -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / name

    return write
