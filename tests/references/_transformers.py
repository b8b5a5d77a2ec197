"""Tensor names of transformers: version 5 has other names in memory than in files, and renames tensors when it reads and writes them."""

import torch
from torch import nn


class Written(nn.Module):
    """A network with the tensor names of `save_pretrained`. `hub`: text to replace, and its replacement, for the names of the hub."""

    def __init__(self, net, hub=("", "")):
        from transformers.core_model_loading import revert_weight_conversion

        super().__init__()
        self.net = net
        names = list(net.state_dict())
        written = revert_weight_conversion(net, {name: torch.tensor(i) for i, name in enumerate(names)})
        self.names = {names[i]: name.replace(*hub) for name, i in written.items()}

    def forward(self, *inputs, **options):
        return self.net(*inputs, **options)

    def state_dict(self):
        return {self.names[name]: tensor for name, tensor in self.net.state_dict().items()}

    def named_parameters(self):
        return [(self.names[name], parameter) for name, parameter in self.net.named_parameters()]

    def load_state_dict(self, state, strict):
        return self.net.load_state_dict(
            {name: state[written] for name, written in self.names.items() if written in state}, strict
        )
