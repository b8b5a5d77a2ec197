"""Networks and weight files for tests."""

import torch
from recording import draw, shapes_of

import spine


def random_network(backbone, **options):
    """A network whose weights and statistics all differ."""
    net = spine.create_model(backbone, **{"num_outputs": 3, "image_size": 64, **options}).eval()
    net.load_state_dict({key: value.float() for key, value in draw(shapes_of(net)).items()}, strict=False)
    return net


def equal_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def save_checkpoint(net, path, **config):
    """Writes a file with the tensor names of a training checkpoint."""
    state = {f"model.{key}": value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state, "config": config}, path)
    return path
