"""boto3 on an endpoint: ``python boto3_sagemaker.py PORT``; see ``sagemaker_local.py``."""

from __future__ import annotations

import json
import struct
import sys
from typing import Any

from sagemaker_front import refusal, runtime

ROWS = [[float(row + column) for column in range(8)] for row in range(5)]


def main(port: int) -> None:
    client = runtime(port)

    def invoke(body: Any, kind: str, **more: Any) -> Any:
        return client.invoke_endpoint(EndpointName="endpoint", Body=body, ContentType=kind, **more)

    answer = invoke(json.dumps({"instances": ROWS}), "application/json")
    expected = json.load(answer["Body"])["predictions"]
    assert answer["ContentType"] == "application/json"
    assert len(expected) == len(ROWS)
    print("ok: json")
    lines = "\n".join(",".join(map(str, row)) for row in ROWS)
    answer = invoke(lines, "text/csv", Accept="text/csv", CustomAttributes="trace=7")
    assert (answer["ContentType"], answer["CustomAttributes"]) == ("text/csv", "trace=7")
    assert [[float(line)] for line in answer["Body"].read().decode().split("\n")] == expected
    print("ok: csv and attributes")
    raw = struct.pack(f"<{len(ROWS) * 8}f", *(value for row in ROWS for value in row))
    item = {"name": "x", "shape": [len(ROWS), 8], "datatype": "FP32"}
    item["parameters"] = {"binary_data_size": len(raw)}
    wanted = {"inputs": [item], "parameters": {"binary_data_output": True}}
    head = json.dumps(wanted).encode()
    kind = "application/vnd.sagemaker-triton.binary+json;json-header-size="
    answer = invoke(head + raw, f"{kind}{len(head)}", Accept=f"{kind}0")
    assert answer["ContentType"].startswith(kind)
    body = answer["Body"].read()[int(answer["ContentType"][len(kind) :]) :]
    got = struct.unpack(f"<{len(ROWS)}f", body)
    assert [[value] for value in got] == [list(struct.unpack("f", struct.pack("f", e[0])))
                                          for e in expected]  # fmt: skip
    print("ok: V2 binary")
    status, message = refusal(client, lambda: invoke("1,2", "text/csv"))
    assert (status, "columns" in message) == (400, True)
    print("ok: ModelError 400")
    assert refusal(client, lambda: invoke("<x/>", "application/xml"))[0] == 415
    print("ok: ModelError 415")


if __name__ == "__main__":
    main(int(sys.argv[1]))
