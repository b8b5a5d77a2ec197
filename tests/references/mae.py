"""MAE, fine-tuned: timm's vision transformer with the mean of the patches, which the authors' models_vit.py is made of."""

from recording import CLASSES, Case, renamed

from spine.backbones.mae import LAYOUT


def timm(size):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(size, num_classes=CLASSES, embed_dim=128, depth=4, num_heads=4, global_pool="avg", fc_norm=True)


CASES = [
    Case(
        f"mae-timm-{size[0]}x{size[1]}",
        "timm VisionTransformer(global_pool='avg')",
        lambda size=size: timm(size),
        "micro",
        renamed(LAYOUT),
        options={"image_size": size},
        sizes=(size,),
        train_size=size,
    )
    for size in ((224, 224), (160, 192))
]
