"""Write a container image of a package, without Docker and without root.

Base layers as they are, then the server with its hash-locked wheels for the image's platform,
then the model. The same inputs give the same digest. Without --out and --push the image is
written to NAME.oci.tar, which 'docker load' and 'podman load' take.
"""

from __future__ import annotations

import argparse
from dataclasses import fields

from modelport.api.image import build_image
from modelport.cli.output import Progress, human_size, print_json, print_table
from modelport.core.options import ImageOptions
from modelport.core.settings import resolve

EXAMPLES = """\
examples:
  modelport image ./churn
  modelport image ./churn --push registry.example/team/churn
  modelport image ./churn --out layout/ --platform linux/amd64,linux/arm64
  modelport image ./churn --base oci:./my-base --out churn.tar --force
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.add_argument("package", metavar="PACKAGE", help="a package folder")
    parser.add_argument(
        "--base",
        metavar="REF|oci:DIR|TAR",
        help=f"an image with Python 3.11 or newer (default {ImageOptions.base})",
    )
    parser.add_argument("--out", metavar="DIR|FILE.tar", help="write an OCI layout or archive")
    parser.add_argument("--push", metavar="REF", help="push to registry/repository[:tag]")
    parser.add_argument(
        "--platform", metavar="LIST", help="linux/amd64, linux/arm64, or both with a comma"
    )
    parser.add_argument(
        "--lock", metavar="FILE", help="requirements with hashes, instead of modelport's own"
    )
    parser.add_argument(
        "--bytecode",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compile the modules if the base's Python is here, too (default)",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="plain HTTP for the registry of --push, or of --base",
    )
    parser.add_argument(
        "--force", dest="replace", action="store_true", default=None, help="replace another image"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Build, and print what it is."""
    flags = {item.name: getattr(options, item.name, None) for item in fields(ImageOptions)}
    with Progress() as progress:
        image = build_image(options.package, options=resolve(ImageOptions, flags), report=progress)
    if options.json:
        print_json(image.to_json())
        return 0
    print_table(
        ["PLATFORM", "OURS", "BASE", "DIGEST"],
        [(b.platform, human_size(b.ours), human_size(b.base), b.digest) for b in image.platforms],
    )
    print(f"\nimage {image.digest}")
    if image.out:
        print(f"wrote {image.out}")
    if image.reference:
        print(f"pushed {image.reference}")
    return 0
