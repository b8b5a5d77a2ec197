"""What the protocols of a task share."""

from __future__ import annotations

import inspect
from typing import TypeVar

from spine.tasks.base import Task

TaskClass = TypeVar("TaskClass", bound=type[Task])


def with_options_of_base(protocol: TaskClass) -> TaskClass:
    """Completes the signature of a protocol's class, whose constructor passes `**options` on to the class of the task.

    Configurations are checked against signatures. So the class takes its own options and all options
    of the task, which it does not need to know.
    """
    own, base = inspect.signature(protocol), inspect.signature(protocol.__mro__[1])
    named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    inherited = [p for name, p in base.parameters.items() if name not in own.parameters]
    protocol.__signature__ = own.replace(parameters=[*named, *inherited])  # type: ignore[attr-defined]
    return protocol
