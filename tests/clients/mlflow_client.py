"""MLflow's own scoring client: ``python mlflow_client.py PORT``.

The server's first model gives back its input: ``x`` float64 [N, 3] with columns a, b, c.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from typing import Any

import numpy as np
import pandas as pd
import requests
from mlflow.models import convert_input_example_to_serving_input
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

FRAME = pd.DataFrame({"a": [1.5, 2.0], "b": [3, 4], "c": [0.1, 1e-7]})
ROWS = [[1.5, 3.0, 0.1], [2.0, 4.0, 1e-7]]
DOCUMENTS: tuple[dict[str, Any], ...] = (
    {"dataframe_split": {"columns": ["a", "b", "c"], "data": ROWS}},
    {"dataframe_split": {"columns": ["c", "a", "b"], "index": [3, 4], "data": ROWS}},
    {"dataframe_records": [{"b": 2, "c": 3, "a": 1}, {"a": 4, "b": 5, "c": 6}]},
    {"instances": ROWS},
    {"instances": [{"a": 1, "b": 2, "c": 3}, {"a": 4, "b": 5, "c": 6}]},
    {"instances": [{"x": row} for row in ROWS]},
    {"inputs": ROWS},
    {"inputs": {"a": [1, 4], "c": [3, 6], "b": [2, 5]}},
    {"inputs": {"x": ROWS}},
)


def read_by_mlflow(data: Any) -> Any:
    """What MLflow's server makes of a body, as rows of a, b, c."""
    if isinstance(data, pd.DataFrame):
        return data[["a", "b", "c"]].to_numpy(float).tolist()
    if isinstance(data, dict):
        data = data["x"] if "x" in data else np.stack([data[name] for name in "abc"], axis=-1)
    return np.asarray(data, float).tolist()


def main(port: int) -> None:
    client = ScoringServerClient("127.0.0.1", port)
    client.wait_server_ready(timeout=10)
    client.ping()
    assert client.get_version()
    print("ok: ping and version")

    def invoke(data: Any, **more: Any) -> Any:
        return client.invoke(data, **more)["predictions"]

    assert invoke(FRAME) == ROWS
    shuffled = FRAME.assign(z="extra")[["c", "z", "a", "b"]]
    assert invoke(shuffled) == ROWS
    print("ok: DataFrame, in any order, with more columns")
    missing = invoke(FRAME.assign(a=[None, 2.0]))
    assert math.isnan(missing[0][0])
    assert missing[1] == ROWS[1]
    print("ok: DataFrame with a missing number")
    assert invoke(np.array(ROWS)) == ROWS
    print("ok: ndarray")
    assert invoke(ROWS) == ROWS
    assert invoke(FRAME.to_dict(orient="records")) == ROWS
    print("ok: list, of rows and of records")
    # The client of 3.17 takes a dict's keys for pairs; a text it sends as it is.
    for inputs in (FRAME.to_dict(orient="list"), {"x": ROWS}):
        assert invoke(json.dumps({"inputs": inputs})) == ROWS
    print("ok: dict")
    assert invoke(FRAME, params={"temperature": 0.5}) == ROWS
    print("ok: params")
    frame = client.invoke(FRAME).get_predictions()
    assert frame.to_numpy().tolist() == ROWS
    print("ok: predictions as a DataFrame")
    for example in (FRAME, np.array(ROWS), FRAME.to_dict(orient="list")):
        assert invoke(convert_input_example_to_serving_input(example)) == ROWS
    print("ok: serving input that MLflow makes of an example")
    url = f"http://127.0.0.1:{port}/invocations"
    for body, kind in (
        (FRAME.to_csv(index=False).encode(), "text/csv"),
        (FRAME.to_csv().encode(), "text/csv; charset=utf-8"),
    ):
        answer = requests.post(url, body, headers={"Content-Type": kind}, timeout=10)
        assert answer.json() == {"predictions": ROWS}, answer.text
    print("ok: CSV as pandas writes it")
    for document in DOCUMENTS:
        theirs = read_by_mlflow(scoring_server.infer_and_parse_data(document))
        assert invoke(json.dumps(document)) == theirs, document
    text = FRAME.to_csv(index=False, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    theirs = read_by_mlflow(scoring_server.parse_csv_input(io.StringIO(text)))
    kind = {"Content-Type": "text/csv"}
    assert requests.post(url, text, headers=kind, timeout=10).json()["predictions"] == theirs
    print("ok: bodies mean what they mean to MLflow's server")
    try:
        client.invoke(FRAME[["a", "b"]])
    except Exception as error:
        refusal = str(error)
    assert "error code 400" in refusal
    assert "columns are missing: c" in refusal
    print("ok: a missing column")


if __name__ == "__main__":
    main(int(sys.argv[1]))
