"""A stranger runs a trained TELL cell of each testbed again and gets the committed number.

Of the real chat model one cell is run, where its data are.
"""

import json
from pathlib import Path

import pytest

from tell_lightning.callbacks.run_record import machine
from tell_lightning.cli import main

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
TOLERANCE = 5.0
"""Points by which another processor's rounding may change a score of 128 rows or more, as we
declare it; between seeds scores differ by more."""
REAL = "clinc_travel-tell-n10-s0"
"""Its answers are among the shortest, so that it is cheap: minutes on one core."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("folder", "name", "needs"),
    [
        *(("same_data", f"{each}-tell-n10-s0", ()) for each in ("translate", "judge", "compose")),
        (
            "real/same_data",
            REAL,
            (
                "real/data/real/clinc_travel",
                "real/data/general/short",
                f"real/same_data/results/{REAL}.json",
            ),
        ),
    ],
)
def test_a_trained_cell_gives_the_committed_number(
    folder: str, name: str, needs: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacks := [str(EXPERIMENTS / path) for path in needs if not (EXPERIMENTS / path).exists()]:
        pytest.skip(f"Requires: {', '.join(lacks)}")
    claim = EXPERIMENTS / folder
    committed = json.loads((claim / f"results/{name}.json").read_text("utf-8"))
    monkeypatch.chdir(tmp_path)
    main(["experiment", str(claim), "--cell", name, "--results", str(tmp_path / "results")])
    again = json.loads((tmp_path / f"results/{claim.name}/results/{name}.json").read_text("utf-8"))
    assert again["config_digest"] == committed["config_digest"]
    assert again["base_sha256"] == committed["base_sha256"]
    assert again["tokens"] == committed["tokens"]
    score, here = committed["score"], machine()["processor"]
    points = 1 if score == "bleu" else 100
    scores = [points * found["test"]["values"][score] for found in (committed, again)]
    if committed["machine"]["processor"] == here and (
        committed["versions"]["torch"] == again["versions"]["torch"]
    ):
        assert again["test"] == committed["test"]
    assert scores[1] == pytest.approx(scores[0], abs=TOLERANCE)
