"""Exports a network as a graph: captures it, writes the file, and compares it with PyTorch before it is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from spine.errors import InputError
from spine.exporting import onnx_files, torch_files
from spine.exporting.checking import Call, Difference, Inputs, Latency, compare, measure_latency, megabytes, run_pytorch
from spine.exporting.facts import make_facts
from spine.exporting.network import ExportedNetwork
from spine.exporting.options import ExportOptions
from spine.exporting.quantization import quantize
from spine.exporting.samples import SampleSource, fit, pixels_of, stack
from spine.exporting.tracing import Traced, allowed_sizes, traced_graphs
from spine.prediction.exported_file import FileFacts

OTHER_SIZE = (95, 161)  # pixels that are added to height and width for the comparison at another size
LARGEST_BATCH = 4  # images of a batch that are compared at once
Inspect = Callable[[Path], dict[str, float]]  # a further check of a file, with its results; raises InputError if it fails
OPENERS: dict[str, Callable[[Path], Call]] = {
    "onnx": onnx_files.OnnxFile,
    "torch_export": torch_files.TorchExportFile,
    "torchscript": torch_files.TorchScriptFile,
}


@dataclass(frozen=True)
class Exported:
    """A file that was written and compared with PyTorch.

    files: its paths, the JSON last. parameters: of the network. results: those of the further check. reason: why images have one
    size, if they do.
    """

    files: tuple[Path, ...]
    facts: FileFacts
    parameters: int
    difference: Difference
    latency: Latency | None
    results: dict[str, float]
    reason: str

    @property
    def megabytes(self) -> float:
        """The size of the file, with external weights and without the JSON."""
        return megabytes(self.files[:-1])


def export_graph(source: SampleSource, options: ExportOptions, inspect: Inspect | None = None) -> Exported:
    """Writes the network of a predictor as ONNX, torch.export or TorchScript file, with a JSON beside it.

    The file is opened again and compared with PyTorch on the images of `source`. `inspect` is called with its path afterwards. The
    file gets to its place only if every check passes. Raises InputError if one does not, or if the network cannot be written.
    """
    with staged(options.out) as folder:
        export = _GraphExport(source, options, folder / options.out.name)
        facts, reason = export.write()
        file, batches = OPENERS[options.format](export.path), export.batches(facts)
        difference = compare(export.pytorch, file, batches)
        if options.precision != "int8":  # whose accuracy is what `inspect` checks
            check_difference(difference, options)
        results = {} if inspect is None else inspect(export.path)
        rounds = options.latency_rounds
        latency = measure_latency(export.pytorch, file, batches[0], rounds) if rounds else None
        report = {
            "largest_difference": difference.largest,
            "relative_difference": difference.relative,
            "latency_ms": None if latency is None else dataclasses.asdict(latency),
            **results,
        }
        export.path.with_name(f"{export.path.name}.json").write_text(json.dumps({**facts.to_dict(), "check": report}, indent=2))
        files = sorted(folder.iterdir(), key=lambda each: (each.suffix == ".json", each.name))
        kept = tuple(each.replace(options.out.with_name(each.name)) for each in files)
    parameters = sum(parameter.numel() for parameter in export.model.parameters())
    return Exported(kept, facts, parameters, difference, latency, results, reason)


def check_difference(difference: Difference, options: ExportOptions) -> None:
    """Raises InputError if the outputs of a file differ more from PyTorch's than the tolerance."""
    if difference.relative > options.allowed_difference:
        raise InputError(
            f"The outputs of the file differ from PyTorch's by {difference}; the tolerance is {options.allowed_difference:g} of the "
            f"largest output. No file was kept. A larger tolerance=<fraction> accepts it."
        )


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A hidden folder beside a file that is written, so that it gets to its place only when it is complete.

    Raises InputError if the folder cannot be made.
    """
    folder = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"'{out}' cannot be written ({error.strerror or error}).") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _GraphExport:
    """What the steps of one export share."""

    def __init__(self, source: SampleSource, options: ExportOptions, path: Path):
        if options.format == "onnx":
            onnx_files.check_packages()
        options.check_task(source.description.task)
        self.source, self.options, self.path = source, options, path
        self.model: nn.Module = source.predictor.task.model.float().cpu()
        self.pytorch = run_pytorch(self.model)
        self.samples = list(source.inputs("val", options.samples))

    def network(self, half: bool = False) -> ExportedNetwork:
        """Returns the network as it is exported."""
        return ExportedNetwork(
            self.model,
            self.source.description,
            include_preprocessing=self.options.include_preprocessing,
            postprocessing=self.options.postprocessing,
            half=half,
        )

    def of_file(self, inputs: Inputs) -> Inputs:
        """Returns the inputs of the file for inputs of the network."""
        return pixels_of(inputs, self.source.description) if self.options.include_preprocessing else inputs

    def write(self) -> tuple[FileFacts, str]:
        """Writes the file with its metadata. Returns its facts, and the reason why images have one size."""
        options = self.options
        inputs = self.of_file(stack(_filled(self.samples, options.batch_size or 2)))
        multiples, reason = ((), "") if options.fixed_size else allowed_sizes(self.model, self.source.size)
        if options.format == "torchscript":
            return self._write_torchscript(inputs, multiples, reason)
        failure: InputError | None = None
        for traced in traced_graphs(self.network(options.precision == "fp16"), inputs, options.batch_size, multiples, reason):
            facts = self._facts(inputs, traced.multiple)
            try:
                if options.format == "torch_export":
                    torch_files.write_torch_export(traced, self.path, facts.to_json())
                else:
                    self._write_onnx(traced, inputs, facts)
                if traced.multiple is not None:
                    self._check_other_size(traced.multiple)
            except InputError as error:  # a graph for one size has simpler operations
                failure = error
            else:
                return facts, traced.reason
        assert failure is not None
        raise failure

    def _facts(self, inputs: Inputs, multiple: int | None) -> FileFacts:
        network = self.network()
        outputs = run_pytorch(network)(inputs)
        names = network.input_names, network.output_names(len(outputs))
        return make_facts(self.source.description, self.options, names, (inputs, outputs), multiple)

    def _write_onnx(self, traced: Traced, inputs: Inputs, facts: FileFacts) -> None:
        if self.options.precision != "int8":
            onnx_files.write_onnx(traced, inputs, facts, self.path, self.options.opset)
        else:
            whole = self.path.with_name(f"float32-{self.path.name}")
            onnx_files.write_onnx(traced, inputs, facts, whole, self.options.opset)
            size, count = self.options.batch_size or 1, self.options.calibration_samples
            images = _chunks(self.source.inputs("train", count), size)
            quantize(whole, self.path, (self.of_file(each) for each in images))
            for file in self.path.parent.glob(f"{whole.name}*"):
                file.unlink()
        onnx_files.add_metadata(self.path, facts.metadata())

    def _write_torchscript(self, inputs: Inputs, multiples: Sequence[int], reason: str) -> tuple[FileFacts, str]:
        """A recording does not say which other sizes it holds for: they are tried."""
        network, multiple = self.network(), None
        torch_files.write_torchscript(network, inputs, self.path, "")
        for each in multiples:
            with contextlib.suppress(InputError):
                self._check_other_size(each)
                multiple = each
                break
        facts = self._facts(inputs, multiple)
        torch_files.write_torchscript(network, inputs, self.path, facts.to_json())
        return facts, "the recording holds for one size" if multiples and multiple is None else reason

    def _check_other_size(self, multiple: int) -> None:
        """Raises InputError if the file does not hold for images of another size, with sides that are multiples of `multiple`."""
        try:
            difference = compare(self.pytorch, OPENERS[self.options.format](self.path), [self._at_other_size(multiple)])
        except Exception as error:  # the runtimes raise many types
            raise InputError(f"The file cannot compute images of another size: {error}") from error
        if self.options.precision != "int8":
            check_difference(difference, self.options)

    def batches(self, facts: FileFacts) -> list[tuple[Inputs, Inputs]]:
        """Returns inputs of the network with the same inputs of the file: one image, more in batches, and two of another size."""
        if (size := self.options.batch_size) is not None:
            groups = list(_chunks(iter(self.samples), size))
        else:
            groups = [self.samples[0], *_chunks(iter(self.samples[1:]), LARGEST_BATCH, fill=False)]
        pairs = [(each, self.of_file(each)) for each in groups]
        return pairs if facts.image_size is not None else [*pairs, self._at_other_size(facts.size_multiple)]

    def _at_other_size(self, multiple: int) -> tuple[Inputs, Inputs]:
        size = [-(-(side + more) // multiple) * multiple for side, more in zip(self.source.size, OTHER_SIZE, strict=True)]
        image, *more = stack(_filled(self.samples, self.options.batch_size or 2))
        inputs = (fit(image, (size[0], size[1])), *more)
        return inputs, self.of_file(inputs)


def _filled(samples: Sequence[Inputs], count: int) -> list[Inputs]:
    """Returns `count` samples, repeated if there are fewer."""
    return [samples[i % len(samples)] for i in range(count)]


def _chunks(samples: Iterator[Inputs], size: int, fill: bool = True) -> Iterator[Inputs]:
    """Yields batches of `size` samples. The last one may be smaller, or repeats samples with `fill`."""
    batch: list[Inputs] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield stack(batch)
            batch = []
    if batch:
        yield stack(_filled(batch, size) if fill else batch)
