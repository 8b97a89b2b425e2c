"""The dashboard of the shared run: its panels, the workspace that W&B would get, the picture."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from matplotlib.image import imread
from tiny_runs import Run
from wandb_server import WandbServer

from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.metrics.score_facts import all_facts

PATH = Path(__file__).parents[2] / "experiments/dashboard/dashboard.py"
STEP = "trainer/global_step"
NATS = "nats per label token"
PANELS = [
    ("Scores", "turn, dev rows", ["val/turn/bleu", "val/turn/chrf"]),
    (
        "Scores",
        "verdict, dev rows",
        ["val/verdict/balanced_accuracy", "val/verdict/f1", "val/verdict/json_valid"],
    ),
    ("Loss", "training, per source", [f"train/loss/{s}" for s in ("turn", "verdict", "writing")]),
    ("Loss", "dev rows, per task", ["val/loss/turn", "val/loss/verdict"]),
    (
        "Mixture",
        "examples trained on",
        [f"train/examples/{source}" for source in ("turn", "verdict", "writing")],
    ),
    ("Forgetting", "held-out general rows", ["val/loss/writing"]),
    ("Samples", "turn, dev rows", ["val/turn/samples"]),
    ("Samples", "verdict, dev rows", ["val/verdict/samples"]),
]


@pytest.fixture(scope="module")
def dashboard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dashboard"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def logged(run: Run) -> set[str]:
    with (run.folder / "metrics.csv").open(newline="") as file:
        return set(next(csv.reader(file)))


def call(dashboard: ModuleType, monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", ["dashboard.py", *map(str, options)])
    dashboard.main()


def test_panels_are_those_that_matter_and_their_numbers_are_logged(
    dashboard: ModuleType, run: Run, logged: set[str]
) -> None:
    found = dashboard.panels(RunFolder(run.folder), logged)
    assert [(panel.section, panel.title, list(panel.keys)) for panel in found] == PANELS
    assert {key for panel in found if panel.kind != "table" for key in panel.keys} <= logged


def test_scores_have_the_labels_that_they_have_on_the_screen(
    dashboard: ModuleType, run: Run, logged: set[str]
) -> None:
    assert {name for names in dashboard.SCORES.values() for name in names} <= set(all_facts())
    turn, verdict, training, *_ = dashboard.panels(RunFolder(run.folder), logged)
    assert turn.labels == ["BLEU", "chrF"]
    assert verdict.labels == ["balanced accuracy", "F1", "valid JSON"]
    assert training.labels == ["turn", "verdict", "writing"]


def test_panel_of_numbers_that_no_row_holds_is_left_out(dashboard: ModuleType, run: Run) -> None:
    found = dashboard.panels(RunFolder(run.folder), {"train/loss/turn", "train/examples/turn"})
    assert [(panel.title, panel.keys) for panel in found] == [
        ("training, per source", ("train/loss/turn",)),
        ("examples trained on", ("train/examples/turn",)),
    ]


# The package of W&B (0.4) is written for an older Pydantic.
@pytest.mark.filterwarnings("ignore:.*Pydantic.*:DeprecationWarning")
def test_workspace_that_is_sent_holds_the_panels(
    dashboard: ModuleType,
    run: Run,
    server: WandbServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("wandb_workspaces", reason="Requires: pip install .[dashboard]")
    call(dashboard, monkeypatch, run.folder, "--entity", "me")
    (view,) = server.views
    assert (view["entityName"], view["projectName"]) == ("me", "tell_lightning")
    assert capsys.readouterr().out.startswith(f"{server.url}/me/tell_lightning?nw=")
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [*dict.fromkeys(p[0] for p in PANELS)]
    built = [(section["name"], panel) for section in sections for panel in section["panels"]]
    for (section, title, keys), (name, panel) in zip(PANELS, built, strict=True):
        assert section == name
        if name == "Samples":
            assert panel["viewType"] == "Weave"
            assert picked(panel["config"]) == keys[0]
            continue
        assert panel["viewType"] == "Run History Line Plot"
        config = panel["config"]
        assert (config["chartTitle"], config["metrics"], config["xAxis"]) == (title, keys, STEP)
        assert (config.get("plotType") == "pct-area") == (name == "Mixture")
        assert config.get("yAxisTitle") == {"Loss": NATS, "Forgetting": NATS}.get(
            name, "share" if name == "Mixture" else None
        )


def picked(config: dict[str, Any]) -> str:
    """The key that a panel of W&B's query language picks from the summary."""
    return config["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]


def test_picture_is_drawn_without_a_network(
    dashboard: ModuleType, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(dashboard, monkeypatch, run.folder, "--out", tmp_path / "deep/panels.png")
    picture = imread(tmp_path / "deep/panels.png")
    height, width, _ = picture.shape
    assert (height, width) == (1269, 1100)
    # Every eighth of the height holds something: no panel is empty.
    for piece in range(8):
        assert picture[piece * height // 8 : (piece + 1) * height // 8].std() > 0.02


@pytest.mark.parametrize(
    ("left", "said"),
    [(None, "must be the folder of a run"), ("config.yaml", "must have logged something")],
)
def test_folder_without_a_log_is_refused(
    left: str | None,
    said: str,
    dashboard: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if left:
        (tmp_path / left).write_text("{}")
    with pytest.raises(SystemExit) as exit_:
        call(dashboard, monkeypatch, tmp_path, "--out", tmp_path / "x.png")
    assert exit_.value.code == 2
    assert f"RUN: {said}" in capsys.readouterr().err
