"""What is known about BEiT's masked image modeling. The network can be built; no task trains it yet."""

from spine.task_spec import TaskSpec

SPEC = TaskSpec(
    name="beit",
    head_input="tokens",
    default_head="token_classifier",
    needs=frozenset({"image", "visual_tokens"}),
    num_outputs=8192,  # visual tokens of the DALL-E tokenizer
)
