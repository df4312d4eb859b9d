"""The local clients of ``sagemaker-core``: invocations, and a batch transform job.

``python sagemaker_local.py PORT``; the server's first model is ``x`` [N, 8] → ``y`` [N, 1].
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}

import boto3
from sagemaker.core.local import entities, local_session

ROWS = [[float(row + column) for column in range(8)] for row in range(40)]
CSV = "\n".join(",".join(map(str, row)) for row in ROWS)


class RunningContainer:
    """Stands where Docker would start the image: the server runs already."""

    def __init__(self, *arguments: object) -> None:
        self.environment: dict[str, str] = {}

    def serve(self, model: str, environment: dict[str, str]) -> None:
        assert environment["SAGEMAKER_BATCH"] == "True"

    def stop_serving(self) -> None:
        pass


def invocations(port: int) -> list[float]:
    client = local_session.LocalSagemakerRuntimeClient({"local": {"serving_port": port}})

    def ask(body: Any, kind: str | None, accept: str | None, **more: Any) -> tuple[Any, bytes]:
        answer = client.invoke_endpoint(body, "endpoint", kind, accept, **more)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200, answer["Body"].read()
        return answer, answer["Body"].read()

    answer, body = ask(json.dumps({"instances": ROWS}), "application/json", None)
    assert answer["ContentType"] == "application/json"
    expected = [row[0] for row in json.loads(body)["predictions"]]
    assert len(expected) == len(ROWS)
    print("ok: json")
    answer, body = ask(CSV, "text/csv", "text/csv")
    assert answer["ContentType"] == "text/csv"
    assert [float(line) for line in body.decode().split("\n")] == expected
    print("ok: csv")
    attributes = {"CustomAttributes": "trace=7", "TargetVariant": "v", "InferenceId": "i"}
    answer, body = ask(CSV, "text/csv", None, TargetModel="m.tar.gz", **attributes)
    headers = {k.lower(): v for k, v in answer["ResponseMetadata"]["HTTPHeaders"].items()}
    assert headers["x-amzn-sagemaker-custom-attributes"] == "trace=7"
    assert [row[0] for row in json.loads(body)["predictions"]] == expected
    print("ok: attributes")
    answer = client.invoke_endpoint("x", "endpoint", "text/csv")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert json.loads(answer["Body"].read())["error"]
    print("ok: refused")
    return expected


def transform(port: int, kind: str, lines: list[str], strategy: str) -> list[str]:
    """Run a transform job over a file of records, and return the records that come out."""
    session = local_session.LocalSession(boto3.Session(region_name="us-east-1"))
    session.config = {"local": {"serving_port": port}}
    model = {"Image": "image", "ModelDataUrl": "file:///model", "Environment": {}}
    session.sagemaker_client.create_model("model", model)
    job = entities._LocalTransformJob("job", "model", session)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").mkdir()
        (Path(folder) / "in" / "rows").write_text("\n".join(lines) + "\n")
        source = {"S3DataSource": {"S3Uri": f"file://{folder}/in"}}
        given = {"DataSource": source, "SplitType": "Line", "ContentType": kind}
        wanted = {"S3OutputPath": f"file://{folder}/out", "AssembleWith": "Line", "Accept": kind}
        # Unless it is told, the job takes the container's word as the API's, which spells it
        # differently: MULTI_RECORD.
        job.start(given, wanted, {"InstanceType": "local"}, BatchStrategy=strategy)
        assert job.describe()["TransformJobStatus"] == "Completed"
        return (Path(folder) / "out" / "rows.out").read_text().rstrip("\n").split("\n")


def main(port: int) -> None:
    expected = invocations(port)
    lines = CSV.split("\n")
    for strategy in ("MultiRecord", "SingleRecord"):
        assert [float(line) for line in transform(port, "text/csv", lines, strategy)] == expected
        print(f"ok: transform of csv, {strategy}")
    lines = [json.dumps(row) for row in ROWS]
    got = transform(port, "application/jsonlines", lines, "MultiRecord")
    assert [json.loads(line)[0] for line in got] == expected
    print("ok: transform of json lines")


if __name__ == "__main__":
    with (
        mock.patch.object(entities, "_SageMakerContainer", RunningContainer),
        mock.patch.object(entities, "get_docker_host", return_value="127.0.0.1"),
        mock.patch.object(local_session, "get_docker_host", return_value="127.0.0.1"),
    ):
        main(int(sys.argv[1]))
