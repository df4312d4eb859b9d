"""``torchserve-client`` against inference and management, which share a port here.

Arguments: port, model that takes images and answers labels, a photograph, and the name of a
package folder in the model store.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import requests
from torchserve_client import TorchServeClientREST

PORT, MODEL, PHOTO, STORED = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
client = TorchServeClientREST("http://127.0.0.1", management_port=PORT, inference_port=PORT)


def status_of(call: Callable[..., Any], *arguments: Any, **named: Any) -> int:
    """The status of a call that must fail; the body has TorchServe's shape."""
    try:
        call(*arguments, **named)
    except requests.HTTPError as error:
        body = error.response.json()
        code: int = error.response.status_code
        if body.keys() == {"code", "type", "message"} and body["code"] == code:
            return code
        raise AssertionError(f"not TorchServe's shape: {body}") from error
    raise AssertionError("it should have failed")


def check_inference() -> None:
    assert client.inference.health_check() == {"status": "Healthy"}
    with open(PHOTO, "rb") as file:
        answer = client.inference.prediction(MODEL, {"data": file})
    assert answer, answer
    assert all(0 < number <= 1 for number in answer.values()), answer
    with open(PHOTO, "rb") as first, open(PHOTO, "rb") as second:
        both = client.inference.prediction(
            MODEL, [("data", first), ("data", second)], version="1.0"
        )
    assert both == [answer, answer], both
    assert status_of(client.inference.prediction, "nobody", {"data": b"x"}) == 404
    assert status_of(client.inference.prediction, MODEL, {"data": b"x"}) == 400
    assert status_of(client.inference.explaination, MODEL, {"data": b"x"}) == 501
    print("predictions")


def check_descriptions() -> None:
    for api in (client.inference, client.management):
        assert api.api_description()["openapi"].startswith("3.")
    models = client.management.list_models(limit=1)
    assert [item.keys() for item in models["models"]] == [{"modelName", "modelUrl"}]
    while "nextPageToken" in models:
        models = client.management.list_models(limit=1, next_page_token=models["nextPageToken"])
    for version in (None, "1", "1.0", "all"):
        (model,) = client.management.describe_model(MODEL, version=version)
        assert (model["modelName"], model["modelVersion"]) == (MODEL, "1")
        assert [worker["status"] for worker in model["workers"]] == ["READY"]
    assert status_of(client.management.describe_model, "nobody") == 404
    assert status_of(client.management.describe_model, MODEL, version="7") == 404
    print("descriptions")


def check_management() -> None:
    manage = client.management
    told = manage.register_model(STORED, model_name="added", initial_workers=1, synchronous=True)
    assert told["status"] == 'Model "added" Version: 1 registered with 1 initial workers', told
    assert status_of(manage.register_model, STORED, model_name="added") == 409
    assert "added" in [item["modelName"] for item in manage.list_models()["models"]]
    assert manage.scale_workers("added") == {"status": "Workers scaled to 1 for model: added"}
    assert status_of(manage.scale_workers, "added", min_worker=3) == 400
    assert "successfully updated" in manage.set_default_version("added", "1.0")["status"]
    assert manage.unregister_model("added") == {"status": 'Model "added" unregistered'}
    assert status_of(manage.unregister_model, "added") == 404
    assert status_of(manage.register_model, "nowhere") == 404
    assert status_of(manage.register_model, "../../etc") == 400
    assert status_of(manage.register_model, "https://example.com/model.mar") == 400
    print("management")


if __name__ == "__main__":
    check_inference()
    check_descriptions()
    check_management()
