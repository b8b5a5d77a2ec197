"""What is known about semantic segmentation before torch is imported."""

from spine.task_spec import TaskSpec

SPEC = TaskSpec(
    name="seg",
    head_input="maps",
    default_head="fcn",
    needs=frozenset({"image", "mask"}),
    labels="mask_classes",
    pads_images=True,
    auxiliary_losses=True,
)
