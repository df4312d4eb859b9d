"""What a caller can choose, one frozen dataclass per verb.

Every field can also come from the environment or a settings file: see
`modelport.core.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KIB = 1 << 10
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
class ClientOptions:
    """How servers are asked.

    Parameters
    ----------
    api_key : str
        The key to show.
    """

    api_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class ImageOptions:
    """How a container image is made of a package.

    Parameters
    ----------
    base : str
        What it is built upon: an image in a registry, ``oci:DIR[:TAG]`` for an OCI layout, or an
        OCI archive. It needs Python 3.11 or newer and glibc.
    out : str
        Where it is written: a folder (an OCI layout), or a file that ends in ``.tar`` (an OCI
        archive that ``docker load`` and ``podman load`` take, too).
    push : str
        Where it is pushed: ``registry/repository[:tag]``.
    platform : str
        ``linux/amd64``, ``linux/arm64``, or both with a comma.
    lock : str
        A requirements file with hashes, instead of modelport's own: for packages whose engine
        needs more than ONNX Runtime.
    bytecode : bool
        Compile the modules, if a Python of the base's version is here: the server then starts
        with half the processor time. The bytes then depend on that Python's exact version, too.
    replace : bool
        Replace another image at `out`.
    insecure : bool
        Plain HTTP for the registry of `push`, and for the base's where it is the same one or
        nothing is pushed; registries on this machine are always asked so.
    cache : str
        Folder for wheels, layers and base images.
    """

    base: str = "docker.io/library/python:3.13-slim-bookworm"
    out: str = ""
    push: str = ""
    platform: str = "linux/amd64"
    lock: str = ""
    bytecode: bool = True
    replace: bool = False
    insecure: bool = False
    cache: str = "~/.modelport/cache"


@dataclass(frozen=True)
class OptimizeOptions:
    """How a package is optimized.

    Parameters
    ----------
    target : str
        The column of the data that holds the right answers, or a file with one per row. Empty:
        variants are compared with the original's own answers.
    metric : str
        accuracy, f1, recall, rmse, r2, cosine, agreement, or ``module:function``. Empty: by the
        target and the model.
    max_drop : float
        What the metric may lose, in its own unit and not as a share of it: 0.01 is one point of
        accuracy, or one percent more RMSE.
    passes : str
        Names between commas. Empty: all that are installed. ``-NAME``: not this one.
    student : str
        ``module:function`` that returns an untrained ``torch.nn.Module`` or ``keras.Model``, which
        is taught the model's answers. It is imported and called. Empty: none.
    budget : str
        Time in which passes may begin: ``90s``, ``5m``, ``1h``; those that make the model itself
        smaller within 60 % of it. Measuring comes on top. Empty: no limit.
    threads : int
        With which the model will be served.
    replace : bool
        Replace another package at the output folder.
    cache : str
        Folder for the variants of a run that is interrupted: the next one goes on.
    """

    target: str = ""
    metric: str = ""
    max_drop: float = 0.01
    passes: str = ""
    student: str = ""
    budget: str = "10m"
    threads: int = 1
    replace: bool = False
    cache: str = "~/.modelport/cache"


@dataclass(frozen=True)
class ServeOptions:
    """How a server runs.

    Parameters
    ----------
    host : str
        Address to listen on. Other than loopback needs a key or `allow_anonymous`.
    port : int
        TCP port of HTTP.
    grpc_port : int
        TCP port of gRPC; 0: no gRPC.
    name : str
        What clients call the first model, instead of the name in its package.
    workers : int
        Processes.
    threads : int
        Inference threads of each worker. 0: the cores this process may use, divided by the
        workers.
    max_body : int
        Largest request body in bytes, also after decompression; a larger one is answered
        with 413.
    max_batch : int
        Most rows that concurrent requests may share in one execution; 1 switches it off.
    max_queue : int
        Most requests waiting for one model; beyond it the answer is 503.
    timeout : float
        Seconds that a request may wait and run, where the model runs on threads; then the
        answer is 504. 0: no limit.
    body_timeout : float
        Seconds in which a request must arrive. 0: no limit.
    grace : float
        Seconds that running requests may take after SIGTERM.
    api_key : str
        The key that clients must show. Never a flag: other users of a machine see those.
    api_key_file : str
        A file with such keys, one per line.
    guard_health : bool
        Health routes need the key, too.
    allow_anonymous : bool
        Listen on a non-loopback address although nobody is authenticated.
    tls_cert, tls_key : str
        PEM files: the server's certificate chain, and its private key.
    tls_client_ca : str
        A PEM file: clients must show a certificate that one of these authorities signed.
    http2 : bool
        HTTP/2 as well, through ALPN or with prior knowledge; HTTP/1.1 then costs more.
    compress_above : int
        Answers larger than this many bytes are compressed for clients that accept it. 0: none.
    model_control : bool
        Clients may load and unload models.
    model_store : str
        A folder of packages, from which clients may load.
    multi_model : bool
        Serve SageMaker's multi-model contract on ``/models``.
    custom_handler : bool
        Answer as a custom handler of Azure Functions: below ``/api``, and in the host's JSON.
    predict_route, health_route : str
        Further paths at which the first model answers, and at which its readiness is told.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int = 0
    name: str = ""
    workers: int = 1
    threads: int = 0
    max_body: int = 64 * MIB
    max_batch: int = 64
    max_queue: int = 1024
    timeout: float = 60.0
    body_timeout: float = 60.0
    grace: float = 30.0
    api_key: str = field(default="", repr=False)
    api_key_file: str = ""
    guard_health: bool = False
    allow_anonymous: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    http2: bool = False
    compress_above: int = 16 * KIB
    model_control: bool = False
    model_store: str = ""
    multi_model: bool = False
    custom_handler: bool = False
    predict_route: str = ""
    health_route: str = ""
