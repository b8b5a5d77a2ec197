"""Hydra reads each file of conf/ once in a process, when this module is imported.

The tests compose a thousand configurations, each of more than ten files. Reading them takes a third of that time. Files in
other folders are read each time, because tests change them.
"""

import copy
from pathlib import Path

from hydra._internal.config_repository import ConfigRepository

CONF = str(Path(__file__).parents[1] / "conf")
FILES: dict[tuple, object] = {}  # what was read, by the places that were searched and the name
original = ConfigRepository.load_config


def load_config(repository, config_path):
    places = tuple(source.full_path() for source in repository.sources)
    if not all(place.startswith(("pkg://", "structured://")) or place == f"file://{CONF}" for place in places):
        return original(repository, config_path=config_path)
    if (places, config_path) not in FILES:
        found = original(repository, config_path=config_path)
        if found is None or found.path.startswith("structured://"):  # where commands store the configuration of a checkpoint
            return found
        FILES[places, config_path] = found
    return copy.deepcopy(FILES[places, config_path])


ConfigRepository.load_config = load_config
