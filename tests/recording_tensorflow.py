"""Records a small checkpoint that TensorFlow writes, for tests/test_tensorflow_bundle.py.

python tests/recording_tensorflow.py       (with tensorflow-cpu; spine is not needed)
"""

import base64
import json
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

RECORD = Path(__file__).with_name("records") / "tensorflow_bundle.json"
VARIABLES = {
    "MobilenetV2/Conv/weights": np.arange(3 * 3 * 3 * 4, dtype=np.float32).reshape(3, 3, 3, 4),
    # so many that the index has several blocks
    **{f"MobilenetV2/expanded_conv_{i}/depthwise/depthwise_weights": np.full((3, 3, 2, 1), i, np.float32) for i in range(200)},
    "global_step": np.int64(5),
}

if __name__ == "__main__":
    v1 = tf.compat.v1
    v1.disable_eager_execution()
    with tempfile.TemporaryDirectory() as folder, v1.Session() as session:
        for name, value in VARIABLES.items():
            v1.get_variable(name, initializer=value)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, f"{folder}/model.ckpt", global_step=5, write_meta_graph=False)
        files = {path.name: base64.b64encode(path.read_bytes()).decode() for path in Path(folder).glob("model.ckpt-5.*")}
    RECORD.write_text(json.dumps({"made_with": {"tensorflow": tf.__version__}, "files": files}, indent=1) + "\n")
