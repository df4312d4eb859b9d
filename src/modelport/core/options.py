"""What a caller can choose, one frozen dataclass per verb.

Every field can also come from the environment or a settings file: see
`modelport.core.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class RegistryOptions:
    """Where models are registered.

    Parameters
    ----------
    registry : str
        A folder or a URL whose scheme a store adapter answers for.
    cache : str
        Folder for packages pulled in order to be served.
    """

    registry: str = "~/.modelport/registry"
    cache: str = "~/.modelport/cache"


@dataclass(frozen=True)
class PackOptions:
    """How a source model becomes a package.

    Parameters
    ----------
    trust : bool
        Load the source even if the scan finds globals that it does not know; recorded in the
        package.
    allow : str
        Globals that the scan may let pass, by exact name, separated by commas; recorded.
    engine : str
        ``onnx``: convert to ONNX; ``native``: keep the framework's own format, and run that
        framework when served.
    factory : str
        ``module:name`` of the class or function that makes the model, for files that hold
        weights only. It is imported and called.
    signature : str
        Which of a SavedModel's signatures to convert, where it has several.
    image : str
        The model takes images: ``keras``, ``imagenet``, ``tf``, ``caffe`` or ``none`` for how
        the pixels are computed, or a JSON file with an image step.
    text : str
        The model takes texts: a ``tokenizer.json``, or a list of words, one per line.
    labels : str
        A file with the names of the classes, one per line, or a JSON list.
    top_k : int
        Answer the best `top_k` labels; 0: the best alone.
    processing : str
        A JSON file that declares all steps; see `modelport.core.processing`.
    replace : bool
        Replace another package of the same name in the output folder.
    """

    trust: bool = False
    allow: str = ""
    engine: str = "onnx"
    factory: str = ""
    signature: str = ""
    image: str = ""
    text: str = ""
    labels: str = ""
    top_k: int = 0
    processing: str = ""
    replace: bool = False


@dataclass(frozen=True)
class ServeOptions:
    """How a server runs.

    Parameters
    ----------
    host : str
        Address to listen on. Other than loopback needs `allow_anonymous`.
    port : int
        TCP port.
    workers : int
        Processes. 0: one.
    threads : int
        Inference threads of each worker. 0: the cores this process may use, divided by the
        workers.
    max_body : int
        Largest request body in bytes; a larger one is answered with 413.
    max_batch : int
        Most rows that concurrent requests may share in one execution; 1 switches it off.
    max_queue : int
        Most requests waiting for one model; beyond it the answer is 503.
    grace : float
        Seconds that running requests may take after SIGTERM.
    allow_anonymous : bool
        Listen on a non-loopback address although nobody is authenticated.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    threads: int = 0
    max_body: int = 64 * MIB
    max_batch: int = 64
    max_queue: int = 1024
    grace: float = 30.0
    allow_anonymous: bool = False
