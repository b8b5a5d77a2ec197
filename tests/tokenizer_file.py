"""A tokenizer with random weights, for tests of task=beit."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch

from spine.checkpoints.tokenizer_files import save_tokenizer
from spine.components import task_spec
from spine.tokenizers.dvae import DiscreteVAE


@functools.cache
def tokenizer_file(seed=0, decoder=True):
    """Returns the path of a small tokenizer, which is written once for all tests of a process."""
    folder = Path(tempfile.mkdtemp(prefix="spine_tokenizer_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_tokenizer(DiscreteVAE("small", decoder=decoder), folder / "tokenizer.safetensors")
    return folder / "tokenizer.safetensors"


def for_task(task):
    """Returns the overrides that choose a task, with a tokenizer if it reads one."""
    return [f"task={task}", *([f"tokenizer={tokenizer_file()}"] if task_spec(task).reads_tokenizer else [])]
