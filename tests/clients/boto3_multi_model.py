"""boto3 on a multi-model endpoint: ``python boto3_multi_model.py PORT STORE``."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from sagemaker_front import refusal, runtime

ROWS = [[float(row + column) for column in range(8)] for row in range(5)]


def main(port: int, store: str) -> None:
    client = runtime(port, store)

    def invoke(target: str) -> Any:
        answer = client.invoke_endpoint(
            EndpointName="endpoint",
            Body=json.dumps({"instances": ROWS}),
            ContentType="application/json",
            TargetModel=target,
        )
        return json.load(answer["Body"])["predictions"]

    targets = sorted(os.listdir(store))[:2]
    first = [invoke(target) for target in targets]
    assert first[0] != first[1]
    print("ok: two models, loaded when they are asked for")
    assert [invoke(target) for target in targets] == first
    print("ok: again")
    assert refusal(client, lambda: invoke("nothing"))[0] == 400
    print("ok: ModelError 400, no such model")
    status, message = refusal(client, lambda: invoke("../../../../../../../../proc"))
    assert (status, "no model may be loaded" in message) == (400, True)
    print("ok: ModelError 400, a place that is no model's")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
