"""Which settings of a run differ from the default.

A task or general source of the user is compared with the defaults of its class, because it
replaces the tasks and sources of the default configuration.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tell_lightning.data.settings import General, Task

ABSENT = "\N{EM DASH}"


def changed_settings(
    config: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """Return the keys that differ, with the value of the run and that of the default.

    Args:
        config: The run's configuration.
        defaults: The default configuration.

    Returns:
        Dotted key, value of the run, value of the default; what has no default has a dash.
    """
    ours, theirs = _flat(config), _flat(defaults)
    found = []
    for key, value in ours.items():
        if key.startswith(("data.tasks.", "data.general.")):
            continue
        if key not in theirs or theirs[key] != value:
            found.append((key, _written(value), _written(theirs[key]) if key in theirs else ABSENT))
    for section, usual in (("tasks", asdict(Task())), ("general", asdict(General()))):
        mine = (config.get("data") or {}).get(section) or {}
        if mine == ((defaults.get("data") or {}).get(section) or {}):
            continue
        known = _flat(json.loads(json.dumps(usual)))
        for name, source in mine.items():
            for key, value in _flat(source).items():
                if key not in known or known[key] != value or (key, value) == ("train", ""):
                    default = known.get(key)
                    written = ABSENT if default in (None, "", {}) else _written(default)
                    found.append((f"data.{section}.{name}.{key}", _written(value), written))
    return found


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Write nested mappings as dotted keys.

    >>> _flat({"a": {"b": 1, "c": {}}, "d": [2]})
    {'a.b': 1, 'a.c': {}, 'd': [2]}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = _flat(value) if isinstance(value, Mapping) else {}
        found |= {f"{key}.{name}": each for name, each in inner.items()} or {key: value}
    return found


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
