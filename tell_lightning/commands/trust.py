"""Code outside this package that the saved configuration of a run names.

Somebody else's run folder may name any Python file. A command other than `fit` that would run it
asks first, as `trust_remote_code` does. What the user types now, or gives by -c, is the user's own
wish.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tell_lightning.commands.config_files import config_paths
from tell_lightning.experiment.overlays import value_of
from tell_lightning.metrics.kinds.registry import BUILT_IN
from tell_lightning.settings import SHIPPED, ConfigError

TRUST = "--trust"
TRUST_HELP = "run the code outside this package that the run's configuration names"
PACKAGES = ("tell_lightning.", "lightning.", "pytorch_lightning.", "torch.", "torchmetrics.")


def check_trust(run: Path, outside: Mapping[str, str], typed: Sequence[str] = ()) -> None:
    """Refuse to run code that only the saved configuration of a run names.

    Args:
        run: The folder of the run.
        outside: The code that would run, by key.
        typed: The files and keys that the user gives now, without the saved configuration.

    Raises:
        ConfigError: There is such code.
    """
    files = [Path(SHIPPED.get(path, path)) for path in config_paths(typed)]
    wished = "\n".join([*typed, *(file.read_text(encoding="utf-8") for file in files)])
    found = [f"{key}: {code}" for key, code in outside.items() if code not in wished]
    if found:
        raise ConfigError(
            f"{run}: code that the run's configuration names must be trusted before it runs on "
            f"this machine, got {'; '.join(found)}. Read that code; then add {TRUST}, or name "
            "other code with keys of your own."
        )


def scoring_code(values: Mapping[str, Any], *keys: str) -> dict[str, str]:
    """List the code outside this package and its libraries that the scoring of tasks names.

    Args:
        values: A configuration, as plain values.
        keys: `kind`, `function` or both.
    """
    tasks = value_of(values, "data.tasks")
    return {
        f"data.tasks.{name}.scoring.{key}": str(code)
        for name, task in (tasks if isinstance(tasks, Mapping) else {}).items()
        for key in keys
        if (code := value_of(task, f"scoring.{key}")) and _is_outside(str(code))
    }


def model_code(values: Mapping[str, Any]) -> dict[str, str]:
    """Name the base if code that comes with it may run."""
    model = values["model"]
    return {"model.trust_remote_code": model["base"]} if model.get("trust_remote_code") else {}


def trainer_code(values: Mapping[str, Any]) -> dict[str, str]:
    """List the classes outside this package and its libraries that the Trainer gets."""
    return dict(_class_paths(values["trainer"], "trainer"))


def _is_outside(code: str) -> bool:
    return code not in BUILT_IN and not code.startswith(PACKAGES)


def _class_paths(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "class_path" and _is_outside(str(inner)):
                yield path, str(inner)
            yield from _class_paths(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _class_paths(inner, f"{path}.{place}")
