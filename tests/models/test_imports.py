from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import models, models.bundle, models.manifest, models.scoring, models.session, models.architectures
import models.backends, models.backends.ort, models.backends.choice, models.backends.status
import models.backends.tensorrt
from models.backends import open_session
from models.bundle import list_bundles, load_bundle
for name in list_bundles():
    open_session(load_bundle(name))
print(sorted({"torch", "onnx", "training", "stream"} & set(sys.modules)))
"""


def test_serving_needs_neither_torch_nor_onnx_nor_other_rooms() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
