"""From a package to a container image, without Docker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from modelport.core.options import ImageOptions
from modelport.core.package import open_package
from modelport.core.settings import resolve

if TYPE_CHECKING:
    from modelport.deploy.images.build import Image

Progress = Callable[[str], None]


def _quiet(line: str) -> None:
    """Report nothing."""


def build_image(
    package: str | Path, *, options: ImageOptions | None = None, report: Progress = _quiet
) -> Image:
    """Write a container image of a package: base, server, model. No daemon, no root.

    Parameters
    ----------
    package : str or Path
        A package folder; it is verified first.
    options : ImageOptions, optional
        With `ImageOptions.push` the image goes to a registry; with `ImageOptions.out` to a
        folder or an archive.
    report : callable, optional
        Told what happens, a line at a time.

    Returns
    -------
    Image
        Its digest, sizes, and where it is.

    Raises
    ------
    InputError
        When the base, the lock file or the platform cannot be used.
    IntegrityError
        When bytes differ from their digest.
    PlatformError
        When a registry refuses.
    """
    from modelport.deploy.images.build import build

    return build(open_package(Path(package)), options or resolve(ImageOptions), report)
