"""Classes that the options of the Trainer name: made with the Trainer, saved as they were given."""

import subprocess
import sys

import pytest
import yaml
from tiny_runs import environment

from tell_lightning.commands.check import check

TIMER = '{class_path: lightning.pytorch.callbacks.Timer, init_args: {duration: "00:01:00:00"}}'
CSV = "{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: x}}"
PLUGIN = "lightning.fabric.plugins.io.torch_io.TorchCheckpointIO"


@pytest.mark.parametrize(
    "options",
    [
        [f"--trainer.callbacks={TIMER}"],
        [f"--trainer.callbacks=[{TIMER}, {{class_path: lightning.pytorch.callbacks.Timer}}]"],
        [f"--trainer.logger={CSV}", "--trainer.callbacks=lightning.pytorch.callbacks.Timer"],
        [f"--trainer.plugins={PLUGIN}"],
    ],
)
def test_a_configuration_with_classes_is_saved_and_read_again(options, tmp_path):
    config = check(["-c", "microworld", *options])
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert check(["-c", str(path)]).trainer == config.trainer
    for name in {"callbacks", "logger", "plugins"} & config.trainer.keys():
        assert "lightning" in yaml.safe_dump(config.trainer[name])


def test_classes_leave_lightnings_messages_on_standard_error(tmp_path):
    """Lightning's handlers keep the stream that they find when a class is imported."""
    classes = {"callbacks": TIMER, "logger": CSV, "plugins": PLUGIN}
    options = [f"--trainer.{name}={value}" for name, value in classes.items()]
    code = (
        "from tell_lightning.commands.check import check\n"
        f"check(['-c', 'microworld', *{options}])\n"
        "from lightning.pytorch.utilities import rank_zero_info\n"
        "rank_zero_info('step 1/2')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "step 1/2\n" in done.stderr
