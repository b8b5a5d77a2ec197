"""Networks of mmpretrain and mmsegmentation, without what only others of theirs need: multimodal models, compiled operations."""

import contextlib
import sys
import types


@contextlib.contextmanager
def stand_ins(names, **parts):
    """Packages of these names that hold only `parts`, in the place of the installed ones: for code built on older ones."""
    tops = {name.partition(".")[0] for name in names}

    def present():
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in tops}

    kept = present()
    for name in kept:
        del sys.modules[name]
    for name in names:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(parts)
    try:
        yield
    finally:
        for name in present():
            del sys.modules[name]
        sys.modules.update(kept)


def models():
    """mmpretrain.models."""
    sys.modules.setdefault("mmpretrain.models.multimodal", types.ModuleType("mmpretrain.models.multimodal"))
    import mmpretrain.models

    return mmpretrain.models


class Operations(types.ModuleType):
    """Stands in for mmcv's compiled operations."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)


def mmseg():
    """mmseg.models."""
    sys.modules.setdefault("mmcv._ext", Operations("mmcv._ext"))
    import mmseg.models

    return mmseg.models


def classifier(backbone, head, neck=None):
    """An ImageClassifier of configurations."""
    return models().build_classifier({"type": "ImageClassifier", "backbone": backbone, "neck": neck, "head": head})


def logits(net, image):
    """The answer of a classifier."""
    return net.head(net.extract_feat(image))
