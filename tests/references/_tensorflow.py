"""Networks of PyTorch with the tensor names and the order of axes of the authors' TensorFlow checkpoints (TF-slim)."""

import re

from torch import nn

NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


class Slim(nn.Module):
    """A network whose tensors have the names that `scopes` gives: of a convolution its scope, of a norm the scope of its convolution."""

    def __init__(self, net, scopes):
        super().__init__()
        self.net = net
        modules = dict(net.named_modules())
        self.names = {}
        for name in net.state_dict():
            module, _, kind = name.rpartition(".")
            self.names[name] = slim_name(modules[module], scopes(module), kind)

    def forward(self, *inputs):
        return self.net(*inputs)

    def state_dict(self):
        return {self.names[name]: to_slim(tensor, self.names[name]) for name, tensor in self.net.state_dict().items()}

    def named_parameters(self):
        for name, parameter in self.net.named_parameters():
            copy = nn.Parameter(to_slim(parameter.detach(), self.names[name]))
            copy.grad = None if parameter.grad is None else to_slim(parameter.grad, self.names[name])
            yield self.names[name], copy

    def load_state_dict(self, state, strict):
        shapes = {name: tensor.shape for name, tensor in self.net.state_dict().items()}
        found = {name: from_slim(state[slim], shapes[name]) for name, slim in self.names.items() if slim in state}
        return self.net.load_state_dict(found, strict)


def slim_name(module, scope, kind):
    if isinstance(module, nn.BatchNorm2d):
        return f"{scope}.BatchNorm.{NORM.get(kind, kind)}"
    depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
    return f"{scope}.{'biases' if kind == 'bias' else 'depthwise_weights' if depthwise else 'weights'}"


def to_slim(x, name):
    """The order of axes of TensorFlow, as transformers' converter turns it around."""
    if name.endswith("depthwise_weights"):
        return x.permute(2, 3, 0, 1)
    if name.endswith(".weights"):
        return (x if x.ndim == 4 else x[..., None, None]).permute(2, 3, 1, 0)
    return x


def from_slim(x, shape):
    if x.ndim != 4:
        return x
    x = x.permute(3, 2, 0, 1) if x.shape[3] != 1 or shape[1] != 1 else x.permute(2, 3, 0, 1)
    return x.reshape(shape)


def mobilenet_v2(module):
    """The scope of a module of transformers' MobileNetV2, as its converter of TensorFlow checkpoints names them."""
    name = re.sub(r"\.(convolution|normalization)$", "", module).removeprefix("mobilenet_v2.")
    layers = {"expand_1x1": "expand", "conv_3x3": "depthwise", "reduce_1x1": "project"}
    whole = {
        "conv_stem.first_conv": "MobilenetV2.Conv",
        "conv_1x1": "MobilenetV2.Conv_1",
        "classifier": "MobilenetV2.Logits.Conv2d_1c_1x1",
        "segmentation_head.conv_pool": "image_pooling",
        "segmentation_head.conv_aspp": "aspp0",
        "segmentation_head.conv_projection": "concat_projection",
        "segmentation_head.classifier": "logits.semantic",
    }
    if name in whole:
        return whole[name]
    *block, layer = name.split(".")
    suffix = "" if block == ["conv_stem"] else f"_{int(block[1]) + 1}"
    return f"MobilenetV2.expanded_conv{suffix}.{layers[layer]}"


def mobilenet_v3(depths):
    """The scopes of the modules of timm's tf_mobilenetv3, as TF-slim numbers them. `depths`: blocks of each stage."""
    starts = [sum(depths[:i]) for i in range(len(depths))]

    def scope(module):
        match = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)", module)
        if match is None or int(match[1]) == len(depths):
            whole = {"conv_stem": "Conv", "bn1": "Conv", "conv_head": "Conv_2", "classifier": "Logits.Conv2d_1c_1x1"}
            return f"MobilenetV3.{whole.get(module, 'Conv_1')}"
        number = starts[int(match[1])] + int(match[2])
        block = f"MobilenetV3.expanded_conv{f'_{number}' if number else ''}"
        first = {"conv_dw": "depthwise", "bn1": "depthwise", "conv_pw": "project", "bn2": "project"}
        other = {"conv_pw": "expand", "bn1": "expand", "conv_dw": "depthwise", "bn2": "depthwise"}
        squeeze = {"se.conv_reduce": "squeeze_excite.Conv", "se.conv_expand": "squeeze_excite.Conv_1"}
        names = {**(other if number else first), **squeeze, "conv_pwl": "project", "bn3": "project"}
        return f"{block}.{names[match[3]]}"

    return scope
