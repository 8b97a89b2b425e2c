"""Configurations merged, and their values set and read by dotted keys.

jsonargparse's Namespace merges by dotted keys too, but would split a key such as `a.b` of a user's
own mapping, and gives back objects of its own; these three functions keep plain mappings.
"""

from collections.abc import Mapping
from typing import Any

from tell_lightning.errors import TellError


def merged(*overlays: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings deeply; later ones win, and lists and values are replaced whole.

    >>> merged({"a": {"x": 1, "y": [1]}}, {"a": {"y": [2]}})
    {'a': {'x': 1, 'y': [2]}}
    """
    result: dict[str, Any] = {}
    for overlay in overlays:
        for key, value in overlay.items():
            below = result.get(key)
            if isinstance(value, Mapping):
                value = merged(below if isinstance(below, Mapping) else {}, value)
            result[key] = value
    return result


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make a nested mapping of values by dotted key.

    >>> nested({"model.optimizer.lr": 0.004, "model.base": "made:plain"})
    {'model': {'optimizer': {'lr': 0.004}, 'base': 'made:plain'}}
    """
    result: dict[str, Any] = {}
    for key, value in settings.items():
        *above, last = key.split(".")
        place = result
        for part in above:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise TellError(f"{key}: must be given without {part}, got both. Remove one.")
        place[last] = value
    return result


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; None if there is none.

    >>> value_of({"model": {"base": "microworld"}}, "model.base")
    'microworld'
    """
    found: Any = config
    for part in key.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found
