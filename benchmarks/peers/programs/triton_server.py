"""The tritonserver in nvidia-pytriton's wheel with a model for its Python backend.

PyTriton itself would add one more process between; Triton's ONNX Runtime backend is in no wheel.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import distribution
from pathlib import Path

import onnxruntime

_CONFIG = """
backend: "python"
max_batch_size: 64
input [{{ name: "input" data_type: TYPE_FP32 dims: [{inputs}] }}]
output [{{ name: "output" data_type: TYPE_FP32 dims: [{outputs}] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
dynamic_batching {{}}
parameters {{ key: "path" value {{ string_value: "{path}" }} }}
"""


def write_repository(path: Path, folder: Path) -> None:
    """Lay out a model repository with the one model."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs, outputs = (
        ", ".join(map(str, values[0].shape[1:]))
        for values in (session.get_inputs(), session.get_outputs())
    )
    version = folder / path.stem / "1"
    version.mkdir(parents=True)
    here = Path(__file__).parent
    (version / "model.py").symlink_to(here / "triton_model.py")
    (version / "onnx_session.py").symlink_to(here / "onnx_session.py")
    (folder / path.stem / "config.pbtxt").write_text(
        _CONFIG.format(inputs=inputs, outputs=outputs, path=path)
    )


def link_backend(root: Path, folder: Path) -> None:
    """Put the Python backend together with the stub for this version of Python."""
    folder.mkdir(parents=True)
    for file in (root / "backends" / "python").iterdir():
        (folder / file.name).symlink_to(file)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = "triton_python_backend_stub"
    (folder / stub).symlink_to(root / "python_backend_stubs" / version / stub)


if __name__ == "__main__":
    root = Path(str(distribution("nvidia-pytriton").locate_file("pytriton/tritonserver")))
    folder = Path.cwd()
    write_repository(Path(sys.argv[1]), folder / "models")
    link_backend(root, folder / "backends" / "python")
    server = str(root / "bin" / "tritonserver")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(root.parents[1] / "nvidia_pytriton.libs"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # The stub embeds an interpreter, which does not know the virtual environment.
        "PYTHONPATH": str(root.parents[1]),
    }
    grpc = ["--allow-grpc=false"]
    if "grpc" in sys.argv[3:]:
        grpc = ["--grpc-address=127.0.0.1", f"--grpc-port={int(sys.argv[2]) + 1}"]
    os.execve(
        server,
        [
            server,
            f"--model-repository={folder / 'models'}",
            f"--backend-directory={folder / 'backends'}",
            "--http-address=127.0.0.1",
            f"--http-port={sys.argv[2]}",
            *grpc,
            "--allow-metrics=false",
            "--log-info=false",
            "--log-warning=false",
        ],
        environment,
    )
