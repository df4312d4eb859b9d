"""The registry client against Debian's docker-registry, counter-checked by skopeo."""

from __future__ import annotations

import base64
import json
import logging
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelport.core.errors import (
    InputError,
    IntegrityError,
    ModelportError,
    NotFoundError,
    PlatformError,
    UnsupportedError,
)
from modelport.deploy.base import Progress
from modelport.deploy.images import exchange, pull
from modelport.deploy.images.credentials import Credential, find_credential
from modelport.deploy.images.push import push_layout
from modelport.deploy.images.reference import Reference, parse_reference
from modelport.deploy.images.session import Session
from tests.deploy.registries import (
    Front,
    Layout,
    TokenServer,
    needed,
    running_front,
    running_registry,
)
from tests.serve.certificates import Certificates

USER, PASSWORD = "ada", "a-long-password-of-ada"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One without a login."""
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's configuration file, which is not there yet."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder / "config.json"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, docker: Path) -> None:
    """Attempts follow each other at once; nobody's own credentials are used."""
    monkeypatch.setattr(exchange, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(exchange, "_LONGEST_PAUSE", 0.01)


@pytest.fixture
def said() -> list[str]:
    return []


def skopeo(*arguments: str) -> bytes:
    done = subprocess.run(
        ["timeout", "60", needed("skopeo"), *arguments], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def log_in(path: Path, host: str, user: str = USER, password: str = PASSWORD) -> None:
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def lonely(path: Path, size: int = 0) -> tuple[Path, str]:
    """A layout with one image, and its digest."""
    layout = Layout(path)
    image = layout.image(path.name, size=size)
    return layout.finish(image), str(image["digest"])


def pull_base(name: str, platform: str, folder: Path, report: Progress) -> pull.Pulled:
    return pull.pull_base(parse_reference(name), platform, folder / "blobs/sha256", report)


def resolve_digest(name: str) -> str:
    """What a name means now."""
    reference = parse_reference(name)
    return pull.get_manifest(Session(reference, "pull"), reference.wanted)[1]


# Names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpine", Reference("docker.io", "library/alpine")),
        ("alpine:3", Reference("docker.io", "library/alpine", "3")),
        ("team/app", Reference("docker.io", "team/app")),
        ("index.docker.io/app", Reference("docker.io", "library/app")),
        ("docker.io/team/app:1", Reference("docker.io", "team/app", "1")),
        ("localhost/app", Reference("localhost", "app")),
        ("127.0.0.1:5000/a/b:t", Reference("127.0.0.1:5000", "a/b", "t")),
        ("[::1]:5000/a", Reference("[::1]:5000", "a")),
        ("Ghcr.IO/a/b__c", Reference("ghcr.io", "a/b__c")),
        (f"h.x/a:t@sha256:{'a' * 64}", Reference("h.x", "a", "t", f"sha256:{'a' * 64}")),
    ],
)
def test_names_are_completed_as_docker_does(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " a", "https://h.x/a", "h.x/A", "h.x/a..b", "h.x/a:", "h.x/a:-t", f"h.x/a:{'t' * 129}",
        "h.x/a@sha256:12", "h.x/a@", f"h.x/a@sha512:{'a' * 128}", "h.x/", "h_x.y/a", "h.x/a/../b",
        f"h.x/{'a' * 252}", "h.x/a\nb", "h.x:port/a", "h.x:0/a", "h.x:65536/a", "[::1]:99999/a",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not an image reference"):
        parse_reference(text)


def test_where_a_name_leads() -> None:
    hub = parse_reference("alpine@sha256:" + "b" * 64)
    assert (hub.host, hub.wanted, hub.loopback) == ("registry-1.docker.io", hub.digest, False)
    assert parse_reference("a.b/c").wanted == "latest"
    assert str(parse_reference("alpine")) == "docker.io/library/alpine"
    local = {"localhost:1/a", "127.9.9.9/a", "[::1]/a"}
    for text in (*local, "localhost.evil.com/a", "127.0.0.1.nip.io/a", "h.x/a"):
        assert parse_reference(text).loopback is (text in local), text


# Push and pull


def test_a_pushed_layout_is_what_skopeo_pulls(
    registry: str, tmp_path: Path, said: list[str]
) -> None:
    layout, digest = lonely(tmp_path / "one", size=3 << 20)
    name = f"{registry}/team/one:v1"
    assert push_layout(layout, name, said.append) == digest
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert raw == (layout / "blobs/sha256" / digest[7:]).read_bytes()
    skopeo(
        "copy", "--src-tls-verify=false", f"docker://{registry}/team/one@{digest}",
        f"oci:{tmp_path / 'back'}:x",
    )  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "back/blobs/sha256").iterdir()) == sorted(
        p.name for p in (layout / "blobs/sha256").iterdir()
    )
    assert resolve_digest(name) == digest
    assert any("MiB" in line for line in said)


def test_layers_that_exist_are_not_sent_again(
    registry: str, tmp_path: Path, said: list[str]
) -> None:
    layout, digest = lonely(tmp_path / "twice")
    push_layout(layout, f"{registry}/twice:a", said.append)
    with running_front(registry, lambda _: False) as (front, seen):
        assert push_layout(layout, f"{front}/twice:b", said.append) == digest
    assert [method for method, _, _ in seen if method in ("POST", "PATCH")] == []
    assert sum("is there already" in line for line in said) == 2


def test_what_skopeo_pushes_is_pulled(registry: str, tmp_path: Path, said: list[str]) -> None:
    layout, digest = lonely(tmp_path / "theirs", size=2 << 20)
    name = f"{registry}/theirs:1"
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{name}")
    pulled = pull_base(name, "linux/amd64", tmp_path / "cache", said.append)
    assert (pulled.name, pulled.digest) == (name, digest)
    assert pulled.config["architecture"] == "amd64"
    for item in (pulled.manifest["config"], *pulled.manifest["layers"]):
        path = tmp_path / "cache/blobs/sha256" / item["digest"][7:]
        assert path.read_bytes() == (layout / "blobs/sha256" / path.name).read_bytes()


def test_docker_format_is_pulled(registry: str, tmp_path: Path, said: list[str]) -> None:
    layout, _ = lonely(tmp_path / "docker-format")
    name = f"{registry}/docker-format:1"
    skopeo(
        "copy", "--format", "v2s2", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{name}"
    )
    pulled = pull_base(name, "linux/amd64", tmp_path / "cache", said.append)
    assert pulled.manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_blobs_that_are_there_are_verified_and_kept(
    registry: str, tmp_path: Path, said: list[str]
) -> None:
    layout, _ = lonely(tmp_path / "kept")
    push_layout(layout, f"{registry}/kept:1", said.append)
    cache = tmp_path / "cache"
    pulled = pull_base(f"{registry}/kept:1", "linux/amd64", cache, said.append)
    with running_front(registry, lambda _: False) as (front, seen):
        pull_base(f"{front}/kept:1", "linux/amd64", cache, said.append)
        assert not [path for _, path, _ in seen if "/blobs/" in path]
        layer = cache / "blobs/sha256" / pulled.manifest["layers"][0]["digest"][7:]
        content = layer.read_bytes()
        layer.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        pull_base(f"{front}/kept:1", "linux/amd64", cache, said.append)
        assert len([path for _, path, _ in seen if "/blobs/" in path]) == 1
    assert layer.read_bytes() == content


def test_an_index_is_pushed_whole_and_its_platforms_are_chosen(
    registry: str, tmp_path: Path, said: list[str]
) -> None:
    layout = Layout(tmp_path / "many")
    amd, arm = layout.image("a", "amd64"), layout.image("b", "arm64")
    index = layout.index(amd, arm)
    name = f"{registry}/many:1"
    assert push_layout(layout.finish(index), name, said.append) == index["digest"]
    for platform, image in (("linux/amd64", amd), ("linux/arm64", arm)):
        assert pull_base(name, platform, tmp_path / "c", said.append).digest == image["digest"]
    with pytest.raises(NotFoundError, match=r"linux/s390x; there is: linux/amd64, linux/arm64"):
        pull_base(name, "linux/s390x", tmp_path / "c", said.append)
    skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path / 'd'}")


def test_variants_of_a_platform(registry: str, tmp_path: Path, said: list[str]) -> None:
    layout = Layout(tmp_path / "variants")
    images = [layout.image(str(n), "arm64") for n in (9, 8)]
    for variant, image in zip(("v9", "v8"), images, strict=True):
        image["platform"]["variant"] = variant
    name = f"{registry}/variants:1"
    push_layout(layout.finish(layout.index(*images)), name, said.append)
    cache = tmp_path / "c"
    assert pull_base(name, "linux/arm64", cache, said.append).digest == images[1]["digest"]
    with pytest.raises(NotFoundError, match=r"there is: linux/arm64\b"):
        pull_base(name, "linux/amd64", cache, said.append)


def test_the_only_image_is_for_another_platform(
    registry: str, tmp_path: Path, said: list[str]
) -> None:
    layout, _ = lonely(tmp_path / "single")
    push_layout(layout, f"{registry}/single:1", said.append)
    with pytest.raises(NotFoundError, match=r"linux/arm64; there is: linux/amd64"):
        pull_base(f"{registry}/single:1", "linux/arm64", tmp_path / "c", said.append)


def test_an_sbom_is_listed_under_its_image(registry: str, tmp_path: Path, said: list[str]) -> None:
    layout = Layout(tmp_path / "sbom")
    image = layout.image("with an SBOM")
    image["annotations"] = {"org.opencontainers.image.ref.name": "own-tag"}
    sbom = layout.artifact(image)
    folder = layout.finish(image, sbom)
    name = f"{registry}/sbom"
    for _ in range(2):  # a second time changes nothing
        push_layout(folder, name, said.append)
        tag = str(image["digest"]).replace(":", "-")
        listed = json.loads(
            skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}:{tag}")
        )
        assert [entry["digest"] for entry in listed["manifests"]] == [sbom["digest"]]
        assert listed["manifests"][0]["artifactType"] == "application/vnd.cyclonedx+json"
    assert resolve_digest(f"{name}:own-tag") == image["digest"]


def test_a_registry_with_referrers_gets_no_fallback_tag(
    registry: str, tmp_path: Path, said: list[str]
) -> None:
    layout = Layout(tmp_path / "subject")
    image = layout.image("x")
    sbom = layout.artifact(image)

    def rule(front: Front) -> bool:
        if front.command == "PUT" and sbom["digest"] in front.path:
            front.rfile.read(int(front.headers["Content-Length"]))
            front.answer(201, OCI_Subject=str(image["digest"]))
            return True
        return False

    with running_front(registry, rule) as (front, seen):
        push_layout(layout.finish(image, sbom), f"{front}/subject:1", said.append)
    assert not [path for _, path, _ in seen if "sha256-" in path]
    assert seen[-1][:2] == ("PUT", "/v2/subject/manifests/1")  # the tag comes last


def test_what_does_not_exist(registry: str, tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(NotFoundError, match=f"image not found: {registry}/none:latest"):
        resolve_digest(f"{registry}/none")
    with pytest.raises(NotFoundError, match=f"none@sha256:{'0' * 64}"):
        pull_base(f"{registry}/none@sha256:{'0' * 64}", "linux/amd64", tmp_path, said.append)
    with pytest.raises(InputError, match="not an image layout"):
        push_layout(tmp_path, f"{registry}/none", said.append)
    with pytest.raises(PlatformError, match=r"cannot reach 127\.0\.0\.1:1: Connection refused"):
        resolve_digest("127.0.0.1:1/none")


@pytest.mark.parametrize("which", ["layers", "config", "manifest"])
def test_a_damaged_layout_is_not_pushed(
    registry: str, tmp_path: Path, said: list[str], which: str
) -> None:
    layout, digest = lonely(tmp_path / "damaged")
    blobs = layout / "blobs/sha256"
    manifest = json.loads((blobs / digest[7:]).read_bytes())
    layers = {"layers": manifest["layers"][0], "config": manifest["config"]}
    path = blobs / layers.get(which, {"digest": digest})["digest"][7:]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match=r"missing|damaged|other bytes"):
        push_layout(layout, f"{registry}/damaged-{which}", said.append)
    with pytest.raises(NotFoundError):
        resolve_digest(f"{registry}/damaged-{which}")


def test_a_digest_is_no_path(registry: str, tmp_path: Path, said: list[str]) -> None:
    layout = Layout(tmp_path / "evil")
    image = layout.image("x")
    path = layout.folder / "blobs/sha256" / str(image["digest"])[7:]
    manifest = json.loads(path.read_bytes())
    manifest["layers"][0]["digest"] = "sha256:../../../../../../tmp/x"
    with pytest.raises(UnsupportedError, match="not a manifest"):
        push_layout(layout.finish(layout.document(manifest)), f"{registry}/evil:1", said.append)


def test_layers_of_other_repositories_are_not_sent_again(
    registry: str,
    guarded: str,
    tokens: tuple[str, TokenServer],
    tmp_path: Path,
    said: list[str],
    docker: Path,
) -> None:
    for number, address in enumerate((registry, guarded, tokens[0])):
        log_in(docker, address)
        layout, digest = lonely(tmp_path / f"shared{number}", size=1 << 20)
        push_layout(layout, f"{address}/first:1", said.append)
        elsewhere = {f"sha256:{p.name}": "first" for p in (layout / "blobs/sha256").iterdir()}
        elsewhere["sha256:" + "0" * 64] = "one/that/is/of/no/use"
        with running_front(address, lambda _: False) as (front, seen):
            log_in(docker, front)
            name = f"{front}/second/{number}:1"
            assert push_layout(layout, name, said.append, elsewhere=elsewhere) == digest
        assert not [path for method, path, _ in seen if method == "PUT" and "/blobs/" in path]
        assert not [path for _, path, _ in seen if "of/no/use" in path]
        log_in(docker, address)
        cache = tmp_path / f"c{number}"
        assert pull_base(f"{address}/second/{number}:1", "linux/amd64", cache, said.append)
    assert sum("is in first already" in line for line in said) == 6


def test_what_is_not_elsewhere_any_more_is_sent(
    registry: str, tmp_path: Path, said: list[str]
) -> None:
    layout, digest = lonely(tmp_path / "moved-away")
    elsewhere = {f"sha256:{p.name}": "gone/x" for p in (layout / "blobs/sha256").iterdir()}
    name = f"{registry}/moved-away:1"
    assert push_layout(layout, name, said.append, elsewhere=elsewhere) == digest

    def rule(front: Front) -> bool:
        if "mount=" not in front.path:
            return False
        front.answer(405)
        return True

    with running_front(registry, rule) as (front, seen):
        name = f"{front}/moved-away-2:1"
        assert push_layout(layout, name, said.append, elsewhere=elsewhere) == digest
    assert [path for _, path, _ in seen if "mount=" in path]


def test_what_takes_no_sbom_takes_the_image(registry: str, tmp_path: Path, said: list[str]) -> None:
    layout = Layout(tmp_path / "images-only")
    image = layout.image("x")
    sbom = layout.artifact(image)

    def rule(front: Front) -> bool:
        if front.command != "PUT" or sbom["digest"] not in front.path:
            return False
        front.rfile.read(int(front.headers["Content-Length"]))
        front.answer(400, b'{"errors":[{"code":"MANIFEST_INVALID","message":"unknown type"}]}')
        return True

    with running_front(registry, rule) as (front, _):
        push_layout(layout.finish(image, sbom), f"{front}/images-only:1", said.append)
    assert [line for line in said if "not attached" in line and "MANIFEST_INVALID" in line]
    assert resolve_digest(f"{registry}/images-only:1") == image["digest"]


# What goes wrong on the way


def test_an_upload_whose_answer_was_lost_is_not_repeated(
    registry: str, tmp_path: Path, said: list[str]
) -> None:
    layout, digest = lonely(tmp_path / "lost", size=1 << 20)
    times = Times(1)

    def lost(front: Front) -> bool:
        return front.command == "PUT" and "/blobs/" in front.path and times.take()

    with running_front(registry, lambda _: False, lost) as (front, seen):
        assert push_layout(layout, f"{front}/lost:1", said.append) == digest
    assert len([path for method, path, _ in seen if method == "PUT" and "/blobs/" in path]) == 2


@pytest.mark.parametrize("status", [403, 405])
def test_a_registry_that_does_not_say_what_it_has_gets_it(
    registry: str, tmp_path: Path, said: list[str], status: int
) -> None:
    layout, digest = lonely(tmp_path / f"silent-{status}")

    def rule(front: Front) -> bool:
        if front.command == "HEAD":
            front.answer(status)
        return front.command == "HEAD"

    with running_front(registry, rule) as (front, _):
        assert push_layout(layout, f"{front}/silent-{status}:1", said.append) == digest


@pytest.mark.parametrize(
    "location", ["http://[::1", "http://h.x:99999/", "http:///x", "file:///etc/passwd", "//"]
)
def test_addresses_that_are_none(registry: str, location: str) -> None:
    def redirect(front: Front) -> bool:
        front.answer(307, Location=location)
        return True

    def challenge(front: Front) -> bool:
        front.answer(401, WWW_Authenticate=f'Bearer realm="{location}",service="x"')
        return True

    for rule in (redirect, challenge):
        with running_front(registry, rule) as (front, _), pytest.raises(PlatformError):
            resolve_digest(f"{front}/x")


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"config": {"digest": "sha256:" + "0" * 64}},
        {"config": {"digest": "sha256:" + "0" * 64, "size": "1"}},
        {"config": {"digest": "sha256:" + "0" * 64, "size": 1 << 40}},
        {"layers": [{}]},
        {"layers": 5},
        {"manifests": "x"},
        {"manifests": [{"digest": "sha256:" + "0" * 64, "size": 1, "platform": "linux"}]},
    ],
)
def test_manifests_that_are_none(
    registry: str, tmp_path: Path, said: list[str], change: dict[str, Any]
) -> None:
    layout, digest = lonely(tmp_path / "odd")
    manifest = json.loads((layout / "blobs/sha256" / digest[7:]).read_bytes())

    def rule(front: Front) -> bool:
        front.answer(200, json.dumps(manifest | change).encode())
        return True

    with running_front(registry, rule) as (front, _), pytest.raises(UnsupportedError):
        pull_base(f"{front}/odd:1", "linux/amd64", tmp_path / "c", said.append)


def test_a_full_disk_is_not_the_network(registry: str, tmp_path: Path, said: list[str]) -> None:
    layout, _ = lonely(tmp_path / "full", size=3 << 20)
    push_layout(layout, f"{registry}/full:1", said.append)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*File too large"):
            pull_base(f"{registry}/full:1", "linux/amd64", tmp_path / "c", said.append)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name[0] for p in (tmp_path / "c/blobs/sha256").iterdir() if p.name[0] == "."] == []


def test_a_proxy_with_a_password(
    registry: str, monkeypatch: pytest.MonkeyPatch, docker: Path
) -> None:
    def rule(front: Front) -> bool:
        front.answer(404)
        return True

    monkeypatch.setenv("MODELPORT_INSECURE_REGISTRIES", "registry.example")
    for name in ("http_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with running_front(registry, rule) as (front, seen):
        monkeypatch.setenv("HTTP_PROXY", f"http://ada:p%40ss@{front}")
        with pytest.raises(NotFoundError):
            resolve_digest("registry.example/x")
        monkeypatch.setenv("HTTPS_PROXY", f"http://ada:p%40ss@{front}")
        with pytest.raises(PlatformError, match=r"cannot reach tls\.example: Tunnel"):
            resolve_digest("tls.example/x")
    login = "Basic " + base64.b64encode(b"ada:p@ss").decode()
    (method, path, headers), *_ = seen
    assert (method, path) == ("GET", "http://registry.example/v2/x/manifests/latest")
    assert (headers["Proxy-Authorization"], headers["Host"]) == (login, "registry.example")
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(PlatformError, match="a proxy that modelport cannot use: socks5"):
        resolve_digest("registry.example/x")


class Times:
    """Lets a rule apply so many times."""

    def __init__(self, most: int) -> None:
        self.left = most

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


def _cut(front: Front) -> bool:
    front.connection.close()
    return True


@pytest.mark.parametrize("status", [429, 500, 503, 0])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "GET"])
def test_what_fails_for_a_while_is_tried_again(
    registry: str, tmp_path: Path, said: list[str], status: int, method: str
) -> None:
    layout, digest = lonely(tmp_path / f"again-{status}-{method.lower()}", size=1 << 20)
    times = Times(3)

    def rule(front: Front) -> bool:
        if front.command != method or not times.take():
            return False
        front.rfile.read(min(1 << 16, int(front.headers.get("Content-Length", 0))))
        if status:
            front.answer(status, Retry_After="0")
            return True
        return _cut(front)

    name = f"again-{status}-{method.lower()}:1"
    with running_front(registry, rule) as (front, _):
        assert push_layout(layout, f"{front}/{name}", said.append) == digest
        assert pull_base(f"{front}/{name}", "linux/amd64", tmp_path / "c", said.append)
    assert times.left < 0
    assert resolve_digest(f"{registry}/{name}") == digest


def test_attempts_end(registry: str) -> None:
    def rule(front: Front) -> bool:
        front.answer(429, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}')
        return True

    with (
        running_front(registry, rule) as (front, seen),
        pytest.raises(PlatformError, match=r"429 TOOMANYREQUESTS: pull rate limit \(5 attempts\)"),
    ):
        resolve_digest(f"{front}/x")
    assert len(seen) == 5


def test_a_broken_download_goes_on_where_it_was(
    registry: str, tmp_path: Path, said: list[str]
) -> None:
    layout, digest = lonely(tmp_path / "broken", size=3 << 20)
    push_layout(layout, f"{registry}/broken:1", said.append)
    manifest = json.loads((layout / "blobs/sha256" / digest[7:]).read_bytes())
    layer = manifest["layers"][0]
    content = (layout / "blobs/sha256" / layer["digest"][7:]).read_bytes()
    times = Times(1)

    def rule(front: Front) -> bool:
        if layer["digest"] not in front.path or not times.take():
            return False
        front.send_response(200)
        front.send_header("Content-Length", str(len(content)))
        front.end_headers()
        front.wfile.write(content[: 1 << 20])
        return True

    with running_front(registry, rule) as (front, seen):
        pull_base(f"{front}/broken:1", "linux/amd64", tmp_path / "c", said.append)
    ranges = [headers.get("Range") for _, path, headers in seen if layer["digest"] in path]
    assert ranges == [None, f"bytes={1 << 20}-"]
    assert (tmp_path / "c/blobs/sha256" / layer["digest"][7:]).read_bytes() == content


@pytest.mark.parametrize("what", ["other", "longer", "shorter"])
def test_other_bytes_than_the_digest_says_are_not_kept(
    registry: str, tmp_path: Path, said: list[str], what: str
) -> None:
    layout, _ = lonely(tmp_path / "bytes", size=1000)
    push_layout(layout, f"{registry}/bytes:1", said.append)

    def rule(front: Front) -> bool:
        if "/blobs/" not in front.path:
            return False
        path = layout / "blobs/sha256" / front.path.rsplit(":", 1)[1]
        content = path.read_bytes()
        changed = {"other": b"!" + content[1:], "longer": content + b"!", "shorter": content[:-1]}
        front.answer(200, changed[what])
        return True

    with running_front(registry, rule) as (front, _), pytest.raises(IntegrityError):
        pull_base(f"{front}/bytes:1", "linux/amd64", tmp_path / "c", said.append)
    assert list((tmp_path / "c/blobs/sha256").iterdir()) == []


def test_another_manifest_than_the_digest_says_is_refused(
    registry: str, tmp_path: Path, said: list[str]
) -> None:
    layout, digest = lonely(tmp_path / "swapped")
    push_layout(layout, f"{registry}/swapped:1", said.append)

    def rule(front: Front) -> bool:
        front.answer(200, b'{"schemaVersion":2}')
        return True

    with running_front(registry, rule) as (front, _), pytest.raises(IntegrityError, match="sent"):
        resolve_digest(f"{front}/swapped@{digest}")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'"x"', b"\xff"])
def test_what_is_no_registry(registry: str, body: bytes) -> None:
    def rule(front: Front) -> bool:
        front.answer(200, body)
        return True

    with running_front(registry, rule) as (front, _), pytest.raises(UnsupportedError):
        resolve_digest(f"{front}/x")


def test_a_proxy_that_limits_bodies_is_quoted(
    registry: str, tmp_path: Path, said: list[str]
) -> None:
    layout, _ = lonely(tmp_path / "large", size=8 << 20)

    def rule(front: Front) -> bool:
        if front.command != "PUT":
            return False
        front.answer(413, b"<html><h1>413 Request Entity Too Large</h1></html>")
        return True  # and the connection is closed, the body unread

    with running_front(registry, rule) as (front, _), pytest.raises(PlatformError) as caught:
        push_layout(layout, f"{front}/large:1", said.append)
    assert "413 Request Entity Too Large" in str(caught.value)
    assert "client_max_body_size" in str(caught.value)


def test_redirects_to_storage_carry_no_credentials(
    registry: str, tmp_path: Path, said: list[str], docker: Path
) -> None:
    layout, _ = lonely(tmp_path / "moved")
    push_layout(layout, f"{registry}/moved:1", said.append)

    def storage(front: Front) -> bool:
        path = layout / "blobs/sha256" / front.path.rsplit("/", 1)[1].partition("?")[0]
        front.answer(200, path.read_bytes())
        return True

    def rule(front: Front) -> bool:
        if front.headers.get("Authorization") is None:
            front.answer(401, WWW_Authenticate='Basic realm="x"')
            return True
        if "/blobs/" in front.path:
            name = front.path.rsplit(":", 1)[1]
            front.answer(307, Location=f"http://{elsewhere}/{name}?signature=s3cret")
            return True
        return False

    with (
        running_front(registry, storage) as (elsewhere, there),
        running_front(registry, rule) as (front, here),
    ):
        log_in(docker, front)
        pull_base(f"{front}/moved:1", "linux/amd64", tmp_path / "c", said.append)
    assert len(there) == 2
    assert not [headers for _, _, headers in there if "Authorization" in headers]
    assert [headers for _, _, headers in here if "Authorization" in headers]


def test_redirects_end(registry: str) -> None:
    def rule(front: Front) -> bool:
        front.answer(307, Location=front.path)
        return True

    with (
        running_front(registry, rule) as (front, seen),
        pytest.raises(PlatformError, match="without end"),
    ):
        resolve_digest(f"{front}/x")
    assert len(seen) == 6


# Who may


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with a password file."""
    folder = tmp_path_factory.mktemp("guarded")
    line = subprocess.run(
        [needed("htpasswd"), "-Bbn", USER, PASSWORD], capture_output=True, check=True, timeout=60
    )
    (folder / "htpasswd").write_bytes(line.stdout)
    auth = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    with running_registry(folder, auth=auth) as address:
        yield address


def test_basic_authentication(
    guarded: str, tmp_path: Path, said: list[str], docker: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    layout, digest = lonely(tmp_path / "basic", size=1 << 20)
    with pytest.raises(PlatformError, match="401 UNAUTHORIZED: authentication req") as caught:
        push_layout(layout, f"{guarded}/basic:1", said.append)
    assert f"docker login {guarded}" in caught.value.hint
    log_in(docker, guarded, password="not-the-password")
    with pytest.raises(PlatformError, match="401 UNAUTHORIZED") as caught:
        push_layout(layout, f"{guarded}/basic:1", said.append)
    assert f"{USER} was logged in" in caught.value.hint
    log_in(docker, guarded)
    assert push_layout(layout, f"{guarded}/basic:1", said.append) == digest
    assert pull_base(f"{guarded}/basic:1", "linux/amd64", tmp_path / "c", said.append)
    for text in (str(caught.value), repr(find_credential(guarded)), *said, caplog.text):
        assert PASSWORD not in text
        assert "not-the-password" not in text


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, TokenServer]]:
    """A registry that wants tokens, and who gives them."""
    folder = tmp_path_factory.mktemp("tokens")
    server = TokenServer(folder, USER, PASSWORD)
    with (
        running_front("", server.rule) as (realm, _),
        running_registry(folder, auth=server.settings(realm)) as address,
    ):
        yield address, server


def test_bearer_tokens(
    tokens: tuple[str, TokenServer], tmp_path: Path, said: list[str], docker: Path
) -> None:
    address, server = tokens
    layout, digest = lonely(tmp_path / "bearer", size=1 << 20)
    with pytest.raises(PlatformError, match=r"refused to log in at .* wrong password") as caught:
        push_layout(layout, f"{address}/team/bearer:1", said.append)
    assert "docker login" in caught.value.hint
    log_in(docker, address)
    server.asked.clear()
    assert push_layout(layout, f"{address}/team/bearer:1", said.append) == digest
    query = {"kind": ["x"], "service": ["tests"], "scope": ["repository:team/bearer:pull,push"]}
    assert server.asked == [("GET", query)]  # once, for all requests
    docker.unlink()
    assert resolve_digest(f"{address}/team/bearer:1") == digest  # anonymous tokens to pull
    docker.write_text(json.dumps({"auths": {address: {"identitytoken": server.refresh}}}))
    push_layout(layout, f"{address}/team/other:1", said.append)
    assert server.asked[-1][0] == "POST"
    assert server.asked[-1][1]["grant_type"] == ["refresh_token"]


def test_a_token_for_less_is_better_than_none(
    tokens: tuple[str, TokenServer],
    tmp_path: Path,
    said: list[str],
    docker: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, server = tokens
    log_in(docker, address)
    monkeypatch.setattr(server, "most_scopes", 1)
    layout, digest = lonely(tmp_path / "less")
    elsewhere = {f"sha256:{p.name}": "private/x" for p in (layout / "blobs/sha256").iterdir()}
    assert push_layout(layout, f"{address}/less:1", said.append, elsewhere=elsewhere) == digest


def test_a_token_that_expired_is_renewed(
    tokens: tuple[str, TokenServer], tmp_path: Path, said: list[str], docker: Path
) -> None:
    address, server = tokens
    log_in(docker, address)
    layout, digest = lonely(tmp_path / "expired", size=1 << 20)
    times = Times(1)

    def rule(front: Front) -> bool:
        if front.command != "PUT" or not times.take():
            return False
        challenge = f'Bearer realm="http://{realm}/token",service="tests",scope="x"'
        front.answer(401, WWW_Authenticate=challenge)
        return True

    with running_front("", server.rule) as (realm, _), running_front(address, rule) as (front, _):
        log_in(docker, front)
        assert push_layout(layout, f"{front}/expired:1", said.append) == digest
    assert times.left < 0


def test_tokens_are_asked_for_with_tls_only(registry: str) -> None:
    from modelport.deploy.images.session import Session

    session = Session(parse_reference("registry.example/x"), "pull")
    with pytest.raises(PlatformError, match="which has no TLS"):
        session._token({"realm": "http://evil.example/token"}, None)
    with pytest.raises(PlatformError, match="redirects from TLS to http"):
        session.resolve("https://registry.example/v2/", "http://registry.example/upload?state=1")


def test_tls(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, registry: str
) -> None:
    certificates = Certificates(tmp_path / "tls")
    layout, digest = lonely(tmp_path / "secure")
    pair = certificates["server"], certificates["server.key"]
    monkeypatch.setattr(Reference, "loopback", False)  # as any other registry
    with running_registry(tmp_path / "registry", tls=pair) as address:
        with pytest.raises(PlatformError, match=f"certificate of {address} is not trusted"):
            resolve_digest(f"{address}/secure")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates["ca"]))
        exchange._context.cache_clear()
        assert push_layout(layout, f"{address}/secure:1", said.append) == digest
    exchange._context.cache_clear()
    with pytest.raises(PlatformError, match="cannot reach") as caught:
        resolve_digest(f"{registry}/secure")
    assert "MODELPORT_INSECURE_REGISTRIES" in caught.value.hint
    monkeypatch.setenv("MODELPORT_INSECURE_REGISTRIES", f"other,{registry}")
    with pytest.raises(NotFoundError):
        resolve_digest(f"{registry}/secure")


# Credentials


def helper(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_credentials_in_the_file(docker: Path) -> None:
    assert find_credential("h.x") is None
    log_in(docker, "https://h.x/v1/", "u", "p:with:colons")
    assert find_credential("h.x") == Credential("u", "p:with:colons")
    assert find_credential("other.h.x") is None
    assert "colons" not in repr(find_credential("h.x"))
    log_in(docker, "https://index.docker.io/v1/", "u", "p")
    assert find_credential("docker.io") == Credential("u", "p")
    docker.write_text('{"auths": {"h.x": {}}, "credsStore": ""}')
    assert find_credential("h.x") is None


@pytest.mark.parametrize("content", ["{", '{"auths": {"h.x": {"auth": "%"}}}'])
def test_a_file_that_cannot_be_read(docker: Path, content: str) -> None:
    docker.write_text(content)
    with pytest.raises(InputError, match=r"cannot read|not base64") as caught:
        find_credential("h.x")
    assert str(docker) in caught.value.line


def test_credential_helpers(docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = """read server; echo '{"ServerURL":"'$server'","Username":"'$server'","Secret":"s"}'"""
    helper(tmp_path, "own", answer, monkeypatch)
    helper(tmp_path, "all", """echo '{"Username":"<token>","Secret":"r"}'""", monkeypatch)
    settings: dict[str, Any] = {"credsStore": "all", "credHelpers": {"h.x": "own"}}
    docker.write_text(json.dumps(settings))
    assert find_credential("h.x") == Credential("h.x", "s")
    assert find_credential("other.x") == Credential("", "", "r")
    for key in ("docker.io", "index.docker.io", "https://index.docker.io/v1/"):
        settings["credHelpers"] = {key: "own"}
        docker.write_text(json.dumps(settings))
        assert find_credential("docker.io") == Credential("https://index.docker.io/v1/", "s")


def test_helpers_that_fail(docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker.write_text(
        json.dumps({"credsStore": "x", "auths": {"h.x": {"username": "file", "password": "p"}}})
    )
    unknown = "echo credentials not found in native keychain; exit 1"
    helper(tmp_path, "x", unknown, monkeypatch)
    assert find_credential("h.x") == Credential("file", "p")
    helper(tmp_path, "x", "echo the keyring is locked; exit 1", monkeypatch)
    with pytest.raises(PlatformError, match="docker-credential-x failed: the keyring is locked"):
        find_credential("h.x")
    helper(tmp_path, "x", "echo not JSON", monkeypatch)
    with pytest.raises(PlatformError, match="gave an answer that is none"):
        find_credential("h.x")
    monkeypatch.setattr("modelport.deploy.images.credentials._HELPER_SECONDS", 0.1)
    helper(tmp_path, "x", "exec sleep 20", monkeypatch)
    with pytest.raises(PlatformError, match="gave no answer in"):
        find_credential("h.x")
    for name in ("gone", "../x"):
        docker.write_text(json.dumps({"credsStore": name}))
        with pytest.raises(ModelportError, match=r"not installed|not the name of"):
            find_credential("h.x")
