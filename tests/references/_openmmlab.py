"""Networks of mmpretrain and mmsegmentation, without modules that they do not need: multimodal models, compiled operations."""

import contextlib
import sys
import types


@contextlib.contextmanager
def replaced_packages(names, **parts):
    """Replaces packages by empty ones that contain only `parts`, for code that needs older versions."""
    top_level = {name.partition(".")[0] for name in names}

    def imported():
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in top_level}

    kept = imported()
    for name in kept:
        del sys.modules[name]
    for name in names:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(parts)
    try:
        yield
    finally:
        for name in imported():
            del sys.modules[name]
        sys.modules.update(kept)


def models():
    """Returns mmpretrain.models."""
    sys.modules.setdefault("mmpretrain.models.multimodal", types.ModuleType("mmpretrain.models.multimodal"))
    import mmpretrain.models

    return mmpretrain.models


class Operations(types.ModuleType):
    """Replaces the compiled operations of mmcv."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)


def mmseg():
    """Returns mmseg.models."""
    sys.modules.setdefault("mmcv._ext", Operations("mmcv._ext"))
    import mmseg.models

    return mmseg.models


def classifier(backbone, head, neck=None):
    """Builds an ImageClassifier from configurations."""
    return models().build_classifier({"type": "ImageClassifier", "backbone": backbone, "neck": neck, "head": head})


def logits(net, image):
    """Returns the logits of a classifier."""
    return net.head(net.extract_feat(image))
