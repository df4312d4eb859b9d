"""An unpacked archive of a function app, loaded and asked as Azure's worker does it.

Usage: functions_archive.py FOLDER MODEL LEVEL   (rows in FOLDER/rows.json)
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import azure.functions as func


async def ask(function: Any, method: str, path: str, document: Any = None) -> func.HttpResponse:
    body = b"" if document is None else json.dumps(document).encode()
    request = func.HttpRequest(
        method, f"https://app.azurewebsites.net{path}",
        headers={"content-type": "application/json"}, body=body,
    )  # fmt: skip
    response: func.HttpResponse = await function(request, None)
    return response


async def main(folder: str, model: str, level: str) -> None:
    sys.path.insert(0, folder)
    os.chdir(folder)
    import function_app

    import modelport

    assert Path(modelport.__file__).is_relative_to(Path(folder).resolve()), modelport.__file__
    assert isinstance(function_app.app, func.AsgiFunctionApp)
    (indexed,) = function_app.app.get_functions()
    trigger = next(b for b in indexed.get_bindings() if b.type == "httpTrigger")
    assert trigger.auth_level is func.AuthLevel[level], trigger.auth_level
    assert trigger.route == "/{*route}", trigger.route
    function = indexed.get_user_function()
    ready = await ask(function, "GET", "/v2/health/ready")
    missing = await ask(function, "GET", f"/v2/models/{model}-nowhere")
    rows = json.loads(Path("rows.json").read_text())
    answer = await ask(function, "POST", f"/v1/models/{model}:predict", {"instances": rows})
    assert answer.status_code == 200, answer.get_body()
    print(json.dumps({
        "ready": ready.status_code, "missing": missing.status_code,
        "predictions": json.loads(answer.get_body())["predictions"],
    }))  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
