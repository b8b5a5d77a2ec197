"""Loads weight files into networks and reports what was loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spine.checkpoints.adaptation import PATCH_KERNEL, POSITION_TENSORS, move_tensors, resize_to
from spine.checkpoints.mapping import BATCH_COUNTER, State
from spine.checkpoints.reader import WeightFile, forget_last_file
from spine.errors import InputError

if TYPE_CHECKING:
    from spine.models.masked import MaskedModel
    from spine.models.network import Model

MIN_COVERAGE = 0.95  # fraction of a backbone's parameters that a file must hold
# Prefixes of the parts that a task may add to a published network; they do not count for the coverage.
OPTIONAL_PARTS = ("head.", "auxiliary_head.", "backbone.pooling.", "backbone.norms.", "mask_pixel")
MAX_NAMES = 4  # names that a line of the report shows one by one; more of them are grouped
MAX_ITEMS = 8  # names and groups of names that it shows


@dataclass
class LoadReport:
    """What was loaded: names of tensors in the network (`unused`: in the file). `str(report)` is the message for users."""

    file: WeightFile
    matched: list[str] = field(default_factory=list)  # loaded
    renamed: list[str] = field(default_factory=list)  # matched, with another name in the file
    resized: list[str] = field(default_factory=list)  # resized to the image, window or patch size of the network
    new: list[str] = field(default_factory=list)  # not in the file, or with another shape there; they keep their initial values
    unused: list[str] = field(default_factory=list)  # in the file, but not in the network
    mismatched: dict[str, str] = field(default_factory=dict)  # new, because the file has another shape or type: both of them
    coverage: float = 0.0  # fraction of the backbone's parameters that the file holds, without OPTIONAL_PARTS
    sizes: dict[str, int] = field(default_factory=dict)  # number of elements of every tensor of the network

    def __str__(self) -> str:
        lines = (
            self._line(self.matched, "tensor matched" if len(self.matched) == 1 else "tensors matched", listed=False),
            self._line(self.renamed, "of them renamed", listed=False),
            self._line(self.resized, "of them resized"),
            self._line(self.new, "new, randomly initialized"),
            self._line(self.unused, "unused, not in this network"),
        )
        return f"Loaded weights from {self.file.path} (layout: {self.file.layout.publisher}):" + "".join(lines)

    def details(self) -> str:
        """Returns one line for each tensor: matched, resized, new or unused, and its name."""
        lines = [f"{status} {name}" for status in ("matched", "resized", "new", "unused") for name in getattr(self, status)]
        return "".join(f"{line}\n" for line in lines)

    def _line(self, names: list[str], status: str, listed: bool = True) -> str:
        if not names:
            return ""
        line = f"\n  {len(names)} {status}"
        if names is not self.unused:  # sizes are those of the network's tensors
            total = sum(self.sizes.values()) or 1
            line += f" ({sum(self.sizes.get(name, 0) for name in names) / total:.1%} of the parameters)"
        return f"{line}: {', '.join(self._listed(names))}" if listed else line

    def _listed(self, names: list[str]) -> list[str]:
        """Returns what a line shows of `names`: all of them if they are few, otherwise groups by their first two parts.

        A tensor whose shape does not fit is shown with both shapes.
        """
        mismatched = [f"{name} ({self.mismatched[name]})" for name in names if name in self.mismatched]
        groups: dict[str, list[str]] = {}
        for name in names:
            if name not in self.mismatched:
                groups.setdefault(".".join(name.split(".")[:2]) if len(names) > MAX_NAMES else name, []).append(name)
        shown = mismatched + [
            members[0] if len(members) == 1 else f"{group}.* ({len(members)})" for group, members in groups.items()
        ]
        return shown[:MAX_ITEMS] + (["..."] if len(shown) > MAX_ITEMS else [])


def load(
    model: Model | MaskedModel,
    file: WeightFile,
    name: str,
    find_variant: Callable[[], str | None] = lambda: None,
) -> LoadReport:
    """Loads a weight file into a network. On the meta device, names and shapes are only compared.

    The file must hold MIN_COVERAGE of the backbone's parameters. The head and the pooling stay newly
    initialized if the file does not have them. `name` is that of the network, for messages;
    `find_variant` returns the name of the network that the file is for, or None. Raises InputError if
    the file does not fit.
    """
    report, loadable = compare(model, file)
    if report.coverage < MIN_COVERAGE:
        raise InputError(_mismatch_message(report, name, find_variant()))
    if not next(model.parameters()).is_meta:
        model.load_state_dict({**model.state_dict(), **loadable}, strict=True)
        forget_last_file()
    report.file = file._replace(tensors={})  # reports are kept; the tensors of the file would stay in memory
    return report


def compare(model: Model | MaskedModel, file: WeightFile) -> tuple[LoadReport, State]:
    """Matches the tensors of a file with those of a network by name and shape. The network may be on the meta device.

    Returns the report and the tensors that can be loaded.
    """
    expected = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(BATCH_COUNTER)}
    tensors = move_tensors(file.tensors, expected, model)
    report = LoadReport(file, sizes={name: tensor.numel() for name, tensor in expected.items()})
    loadable: State = {}
    for name, wanted in expected.items():
        tensor = tensors.get(name)
        if tensor is not None and name.endswith((*POSITION_TENSORS, PATCH_KERNEL)):
            resized = resize_to(tensor, wanted, model, file)
            if resized is not None and resized is not tensor:
                report.resized.append(name)
                tensor = resized
        if tensor is not None and tensor.shape == wanted.shape and tensor.is_floating_point():
            loadable[name] = tensor
            report.matched.append(name)
            continue
        report.new.append(name)
        if tensor is not None:
            in_file, in_network = ("x".join(map(str, shape)) for shape in (tensor.shape, wanted.shape))
            dtype = str(tensor.dtype).removeprefix("torch.")
            report.mismatched[name] = f"{in_file} {dtype} in the file, {in_network} in the network"
    report.renamed = [name for name in report.matched if name not in file.names]
    report.unused = [*(name for name in tensors if name not in expected), *file.unmatched]
    needed = {name: size for name, size in report.sizes.items() if not name.startswith(OPTIONAL_PARTS)}
    report.coverage = sum(needed[name] for name in loadable if name in needed) / max(sum(needed.values()), 1)
    return report, loadable


def _mismatch_message(report: LoadReport, name: str, variant: str | None) -> str:
    """`variant`: the network that the file is for, if it is known."""
    hint = f"It is a file of {variant}; the network is {name}. " if variant else ""
    missing = [key for key in report.new if not key.startswith(OPTIONAL_PARTS)]
    listed = "; ".join(f"{key} ({report.mismatched.get(key, 'not in the file')})" for key in missing[:3])
    return (
        f"'{report.file.path}' does not fit. {hint}Read with the layout of {report.file.layout.publisher}, it holds "
        f"{report.coverage:.0%} of the parameters of this backbone. First mismatches: {listed}."
    )
