"""Where everything stands in a store.

::

    blobs/sha256/<hex>                       files and manifests of packages, by content
    models/<model>/versions/<n>.json         1, 2, 3 …, create-only
    models/<model>/aliases/<alias>/<n>.json  1, 2, 3 …, append-only; the newest one counts

Nothing is ever replaced or removed.
"""

from __future__ import annotations

import re
from typing import Final

from modelport.stores.base import Store

MODELS: Final = "models/"

_RECORD: Final = re.compile(r"(?P<folder>.+/)(?P<number>[1-9][0-9]{0,8})\.json")
_FOLDER: Final = re.compile(r"models/(?P<model>[^/]+)/(?:versions|aliases/(?P<alias>[^/]+))/")


def blob_key(sha256: str) -> str:
    """Key of the bytes with that hexadecimal digest."""
    return f"blobs/sha256/{sha256}"


def versions_folder(model: str) -> str:
    """Prefix of a model's version records."""
    return f"{MODELS}{model}/versions/"


def aliases_folder(model: str) -> str:
    """Prefix of all of a model's alias records."""
    return f"{MODELS}{model}/aliases/"


def alias_folder(model: str, alias: str) -> str:
    """Prefix of one alias's records."""
    return f"{aliases_folder(model)}{alias}/"


def record_key(folder: str, number: int) -> str:
    """Key of record `number` in a folder of records."""
    return f"{folder}{number}.json"


def place(store: Store, key: str) -> str:
    """Where an object is, for messages."""
    return f"{store.url.rstrip('/')}/{key}"


def numbers_by_folder(store: Store, prefix: str) -> dict[str, set[int]]:
    """List the records below `prefix`: folder → numbers. Other objects are passed over."""
    folders: dict[str, set[int]] = {}
    for key in store.list(prefix):
        if match := _RECORD.fullmatch(key):
            folders.setdefault(match["folder"], set()).add(int(match["number"]))
    return folders


def model_and_alias(folder: str) -> tuple[str, str] | None:
    """Whose records a folder holds; the alias is empty for versions, None for neither."""
    match = _FOLDER.fullmatch(folder)
    return (match["model"], match["alias"] or "") if match else None
