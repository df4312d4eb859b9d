"""NVIDIA's client over mutual TLS. Arguments: ``host:port``, authority, client's key and chain."""

from __future__ import annotations

import sys

import numpy as np
import tritonclient.grpc as triton

address, authority, key, chain = sys.argv[1:]
with triton.InferenceServerClient(
    address, ssl=True, root_certificates=authority, private_key=key, certificate_chain=chain
) as client:
    assert client.is_server_ready()
    rows = np.ones((1, 8), np.float32)
    tensor = triton.InferInput("x", [1, 8], "FP32").set_data_from_numpy(rows)
    assert client.infer("dense", [tensor]).as_numpy("y").shape == (1, 1)
print("mutual TLS")
