"""Certificates for the tests of TLS, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Certificates:
    """An authority, and whom it signed; every name is a file in `folder`.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._authority("ca")
        self._authority("other-ca")
        self._leaf("server", "ca", "subjectAltName=IP:127.0.0.1,DNS:localhost")
        self._leaf("client", "ca", "extendedKeyUsage=clientAuth")
        self._leaf("stranger", "other-ca", "extendedKeyUsage=clientAuth")
        self._run(
            "pkey", "-in", "server.key", "-aes256", "-passout", "pass:x", "-out", "locked.key"
        )
        self._run("x509", "-in", "server.pem", "-outform", "DER", "-out", "server.der")
        (folder / "chain.pem").write_bytes(self["server"].read_bytes() + self["ca"].read_bytes())
        (folder / "empty.pem").write_bytes(b"")
        (folder / "text.pem").write_bytes(b"no certificate")

    def __getitem__(self, name: str) -> Path:
        return self.folder / (name if "." in name else f"{name}.pem")

    def _authority(self, name: str) -> None:
        self._run(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *(
                "-subj",
                f"/CN={name}",
                "-days",
                "2",
                "-keyout",
                f"{name}.key",
                "-out",
                f"{name}.pem",
            ),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def _leaf(self, name: str, authority: str, extension: str) -> None:
        (self.folder / f"{name}.ext").write_text(f"{extension}\nbasicConstraints=CA:FALSE\n")
        self._run(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        self._run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-days", "2"),
            *("-CAkey", f"{authority}.key", "-CAcreateserial", "-extfile", f"{name}.ext"),
            *("-out", f"{name}.pem"),
        )

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)
