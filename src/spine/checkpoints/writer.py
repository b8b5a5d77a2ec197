"""Writes the weights of a network in the layout of a publisher."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from spine.checkpoints.mapping import BATCH_COUNTER, SPINE_LAYOUT, Layout, Rule, State
from spine.errors import InputError, nearest
from spine.option_types import Options

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def layout_for(
    state: State,
    layouts: Iterable[Layout],
    publisher: str,
    options: Options,
    defaults: Options,
    others: tuple[str, ...] = (),
) -> Layout:
    """Returns the layout in which a publisher stores a network that was built with `options`.

    It is the publisher's first layout that has a name for every tensor, contains every name that
    would be written, and has the conventions of the network. Floating-point conventions, such as an
    epsilon, may differ: the publisher's network can be built with them. `publisher` "safetensors"
    means spine's own names. `defaults` are those of the backbone's builder. `others`: formats other
    than layouts, for the message. Raises InputError if there is no such layout.
    """
    all_layouts = tuple(layout for layout in layouts if layout.writable)
    wanted = SPINE_LAYOUT.publisher if publisher == "safetensors" else publisher
    candidates = [layout for layout in all_layouts if layout.publisher == wanted]
    if not candidates:
        names = sorted({layout.publisher for layout in all_layouts} - {SPINE_LAYOUT.publisher} | {"safetensors", *others})
        raise InputError(
            f"This backbone cannot be written as '{publisher}'.{nearest(publisher, names)} Choices: {', '.join(names)}."
        )
    reasons = []
    for layout in candidates:
        conventions = {} if layout is SPINE_LAYOUT else differing_options(layout, all_layouts, options, defaults)
        reason = _reason_against(layout, state, conventions)
        if reason is None:
            return layout
        reasons.append(reason)
    raise InputError(f"This network cannot be written as '{publisher}'. {reasons[0]}")


def differing_options(layout: Layout, layouts: Iterable[Layout], options: Options, defaults: Options) -> dict[str, object]:
    """Returns the options of a layout (name -> value) that differ from those of a network built with `options`."""
    names = {name for other in layouts for name in other.options}
    conventions = {name: layout.options.get(name, defaults[name]) for name in names}
    return {name: value for name, value in conventions.items() if options.get(name, defaults[name]) != value}


def _reason_against(layout: Layout, state: State, conventions: Options) -> str | None:
    """Why a network cannot be written in a layout. None if it can. `conventions`: the layout's options that differ."""
    if fixed := [f"{name}={value}" for name, value in conventions.items() if not isinstance(value, float)]:
        return f"The publisher's network has {', '.join(fixed)}; this network does not."
    try:
        converted = layout.to_publisher(state)
    except InputError as error:
        return str(error)
    if layout.match_fraction(name for name in converted if not name.endswith(BATCH_COUNTER)) < 1.0:
        return f"The publisher's network holds other tensors: {', '.join(layout.required or layout.forbidden)}."
    return None


def write_own_names(state: State, publisher: str, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Writes a network without a backbone with its own names. Raises InputError if `publisher` is not "safetensors"."""
    if publisher != "safetensors":
        raise InputError(f"This network cannot be written as '{publisher}', which is for backbones. Use format=safetensors.")
    write(state, Layout(SPINE_LAYOUT.publisher, tuple(Rule(name, name) for name in state)), path, metadata)


def write(state: State, layout: Layout, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a state dict with spine's names to a safetensors or torch file with a publisher's names.

    `metadata` is stored in safetensors files; torch files cannot store it. The file is written
    completely or not at all, with the permissions of any new file. Raises InputError if the suffix is
    unknown or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"'{path}' ends in '{path.suffix}'; weights are written to pth, pt, bin or safetensors files.")
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in layout.to_publisher(state).items()}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(tensors, part, metadata={"format": "pt", **(metadata or {})})
            part.chmod(mode)  # safetensors creates files that only their owner can read
        else:
            torch.save({layout.wrapper: tensors} if layout.wrapper else tensors, part)
        part.replace(path)
    except OSError as error:
        raise InputError(f"'{path}' cannot be written ({error.strerror or error}).") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
