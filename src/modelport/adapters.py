"""THE table: every adapter modelport has, one record each, strings only.

A stage finds its adapters here and nowhere else; nothing is imported until it is asked for.
To add a framework, an engine, a store, a reader, a pass, a protocol, a transport or a target: write
the adapter, add its record here, its extra to ``pyproject.toml``, and one test module.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any, Final

from modelport.core.errors import NotFoundError
from modelport.core.lazy import load_module


@dataclass(frozen=True)
class Adapter:
    """One record of the table.

    Parameters
    ----------
    kind : str
        The family: ``framework``, ``container``, ``scanner``, ``gate``, ``inspector``, ``engine``,
        ``store``, ``reader``, ``processor``, ``protocol`` (over HTTP), ``rpc`` (over gRPC),
        ``coding`` and ``body`` (of requests), ``transport``, ``target`` (of deployments),
        ``applier`` (of their calls), ``access`` (to their endpoints), ``pass`` (of optimizing),
        ``teacher`` (of students that users give), ``plot``, ``demo``.
    name : str
        Unique within its kind.
    target : str
        ``module:Class``; the class takes no arguments.
    requires : tuple of str
        Import names of the packages that it imports.
    extra : str
        The extra in ``pyproject.toml`` that installs them; empty where modelport's own
        requirements do.
    suffixes : tuple of str
        File endings (or URL schemes, for stores) that it answers for.
    summary : str
        What it handles, for ``modelport doctor``.
    formats : tuple of str
        For frameworks: the formats that it reads, as the scan calls them. Live objects belong to
        the framework whose package (the first of `requires`) their classes come from.
    choices : tuple of str
        For frameworks: which of the user's choices about a source (``factory``, ``signature``)
        mean something to it; the others are refused.
    """

    kind: str
    name: str
    target: str
    summary: str
    requires: tuple[str, ...] = ()
    extra: str = ""
    suffixes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Import names that are required and not installed."""
        return [name for name in self.requires if not _is_installed(name)]

    def load(self) -> Any:
        """Import the adapter and return its only instance.

        Raises
        ------
        MissingPackageError
            When a package that it needs is not installed.
        """
        return _instance(self)


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False


@cache
def _instance(adapter: Adapter) -> Any:
    module, _, attribute = adapter.target.partition(":")
    loaded = load_module(
        module, extra=adapter.extra, purpose=f"by the {adapter.name} {adapter.kind}"
    )
    return getattr(loaded, attribute)()


TABLE: Final = (
    Adapter(
        "container", "mlflow", "modelport.scan.containers.mlflow:MlflowContainer",
        "MLflow model folders",
    ),
    Adapter(
        "container", "mar", "modelport.scan.containers.torchserve:TorchServeContainer",
        "TorchServe archives", suffixes=(".mar",),
    ),
    Adapter(
        "container", "archive", "modelport.scan.containers.archive:ArchiveContainer",
        "zip and tar archives that hold one model", suffixes=(".zip", ".tar", ".gz", ".tgz"),
    ),
    Adapter(
        "scanner", "torch", "modelport.scan.scanners.torch:TorchScanner",
        "PyTorch files: torch.save, TorchScript, torch.export.save",
        suffixes=(".pt", ".pth", ".pt2", ".ptl", ".jit", ".ckpt"),
    ),
    Adapter(
        "scanner", "safetensors", "modelport.scan.scanners.safetensors:SafetensorsScanner",
        "safetensors files", suffixes=(".safetensors",),
    ),
    Adapter(
        "scanner", "numpy", "modelport.scan.scanners.numpy:NumpyScanner",
        "NumPy arrays", suffixes=(".npy", ".npz"),
    ),
    Adapter(
        "scanner", "pickle", "modelport.scan.scanners.pickle:PickleScanner",
        "pickle and joblib files, opcode by opcode",
        suffixes=(".pkl", ".pickle", ".joblib", ".sav"),
    ),
    Adapter(
        "scanner", "skops", "modelport.scan.scanners.skops:SkopsScanner",
        "skops files", requires=("skops", "sklearn"), extra="sklearn", suffixes=(".skops",),
    ),
    Adapter(
        "scanner", "xgboost", "modelport.scan.scanners.xgboost:XgboostScanner",
        "XGBoost files", suffixes=(".json", ".ubj", ".bin", ".model", ".xgb"),
    ),
    Adapter(
        "scanner", "lightgbm", "modelport.scan.scanners.lightgbm:LightgbmScanner",
        "LightGBM text models", suffixes=(".txt", ".lgb"),
    ),
    Adapter(
        "scanner", "catboost", "modelport.scan.scanners.catboost:CatboostScanner",
        "CatBoost files", suffixes=(".cbm", ".json"),
    ),
    Adapter(
        "scanner", "onnx", "modelport.scan.scanners.onnx:OnnxScanner",
        "ONNX files", suffixes=(".onnx",),
    ),
    Adapter(
        "scanner", "keras", "modelport.scan.scanners.keras:KerasScanner",
        "Keras models", requires=("keras",), extra="keras", suffixes=(".keras",),
    ),
    Adapter(
        "scanner", "hdf5", "modelport.scan.scanners.hdf5:HDF5Scanner",
        "HDF5 files with Keras models or weights", requires=("keras",), extra="keras",
        suffixes=(".h5", ".hdf5"),
    ),
    Adapter(
        "scanner", "savedmodel", "modelport.scan.scanners.savedmodel:SavedModelScanner",
        "TensorFlow SavedModel folders",
    ),
    Adapter(
        "scanner", "tflite", "modelport.scan.scanners.tflite:TfliteScanner",
        "TensorFlow Lite models", suffixes=(".tflite",),
    ),
    Adapter(
        "gate", "scan", "modelport.scan.gate:ScanGate",
        "model files that another engine than ONNX Runtime is to load",
    ),
    Adapter(
        "framework", "onnx", "modelport.convert.frameworks.onnx:OnnxFramework",
        "ONNX models", requires=("onnx",), extra="onnx",
        formats=("onnx",),
    ),
    Adapter(
        "framework", "xgboost", "modelport.convert.frameworks.xgboost:XgboostFramework",
        "XGBoost boosters and wrappers", requires=("xgboost", "sklearn", "onnx"), extra="xgboost",
        formats=("xgboost", "pickle", "joblib"),
    ),
    Adapter(
        "framework", "keras", "modelport.convert.frameworks.keras:KerasFramework",
        "Keras models, and weights with a factory",
        requires=("keras", "tensorflow", "tf2onnx", "onnx"), extra="keras",
        formats=("keras", "hdf5"), choices=("factory",),
    ),
    Adapter(
        "framework", "tensorflow", "modelport.convert.frameworks.tensorflow:TensorFlowFramework",
        "TensorFlow SavedModel folders",
        requires=("tensorflow", "tf2onnx", "onnx"), extra="tensorflow",
        formats=("savedmodel",), choices=("signature",),
    ),
    Adapter(
        "framework", "tflite", "modelport.convert.frameworks.tflite:TfliteFramework",
        "TFLite models",
        requires=("tensorflow", "tf2onnx", "onnx"), extra="tensorflow",
        formats=("tflite",),
    ),
    Adapter(
        "framework", "lightgbm", "modelport.convert.frameworks.lightgbm:LightgbmFramework",
        "LightGBM boosters and wrappers", requires=("lightgbm", "sklearn", "onnx"),
        extra="lightgbm",
        formats=("lightgbm", "pickle", "joblib"),
    ),
    Adapter(
        "framework", "catboost", "modelport.convert.frameworks.catboost:CatboostFramework",
        "CatBoost models on numbers", requires=("catboost", "onnx"), extra="catboost",
        formats=("catboost", "pickle", "joblib"),
    ),
    Adapter(
        "framework", "sklearn", "modelport.convert.frameworks.sklearn:SklearnFramework",
        "scikit-learn estimators and pipelines",
        requires=("sklearn", "skl2onnx", "onnx", "skops", "pandas"), extra="sklearn",
        formats=("pickle", "joblib", "skops"),
    ),
    Adapter(
        "framework", "torch", "modelport.convert.frameworks.torch:TorchFramework",
        "PyTorch modules, exported programs, TorchScript, and weights with a factory",
        requires=("torch", "onnxscript", "onnx", "safetensors"), extra="torch",
        formats=("torch", "torch-legacy", "torchscript", "pt2", "safetensors"),
        choices=("factory",),
    ),
    Adapter(
        "inspector", "onnxruntime", "modelport.convert.diverge.onnx:OnnxInspector",
        "ONNX exports that differ from their source, node by node",
        requires=("onnx",), extra="onnx",
    ),
    Adapter(
        "processor", "image", "modelport.processing.image:ImageProcessor",
        "encoded images to pixels", requires=("PIL",), extra="image",
    ),
    Adapter(
        "processor", "text", "modelport.processing.text:TextProcessor",
        "texts to tokens, by a tokenizer.json", requires=("tokenizers",), extra="text",
    ),
    Adapter(
        "processor", "vocabulary", "modelport.processing.vocabulary:VocabularyProcessor",
        "texts to word numbers, by a list of words",
    ),
    Adapter(
        "processor", "table", "modelport.processing.table:TableProcessor",
        "columns of a table to a matrix",
    ),
    Adapter(
        "processor", "labels", "modelport.processing.labels:LabelsProcessor",
        "scores to labels, the best or the best few",
    ),
    Adapter(
        "engine", "onnxruntime", "modelport.engines.onnxruntime:OnnxRuntimeEngine",
        "ONNX Runtime on the CPU", requires=("onnxruntime",), suffixes=(".onnx",),
    ),
    Adapter(
        "engine", "torch", "modelport.engines.torch:TorchEngine",
        "PyTorch on the CPU, for models that stay in it", requires=("torch",), extra="torch",
    ),
    Adapter(
        "engine", "keras", "modelport.engines.keras:KerasEngine",
        "Keras on TensorFlow and the CPU",
        requires=("keras", "tensorflow"), extra="keras", suffixes=(".keras",),
    ),
    Adapter(
        "engine", "forest", "modelport.engines.forest:ForestEngine",
        "tree ensembles in ONNX files: ONNX Runtime for few rows, XGBoost for many",
        requires=("onnx", "onnxruntime", "xgboost"), extra="forest", suffixes=(".onnx",),
    ),
    Adapter(
        "reader", "numpy", "modelport.data.numpy_file:NumpyReader",
        "NumPy arrays", suffixes=(".npy", ".npz"),
    ),
    Adapter(
        "reader", "csv", "modelport.data.csv_file:CsvReader",
        "comma-separated columns", suffixes=(".csv",),
    ),
    Adapter(
        "reader", "json", "modelport.data.json_file:JsonReader",
        "JSON documents and JSON lines", suffixes=(".json", ".jsonl"),
    ),
    Adapter(
        "reader", "parquet", "modelport.data.parquet_file:ParquetReader",
        "Parquet columns", requires=("pyarrow",), extra="parquet", suffixes=(".parquet",),
    ),
    Adapter(
        "reader", "image", "modelport.data.image_file:ImageReader",
        "encoded images, each a row",
        suffixes=(".png", ".jpg", ".jpeg", ".bmp", ".webp"),
    ),
    Adapter(
        "reader", "text", "modelport.data.text_file:TextReader",
        "texts, one per line; in a folder one per file", suffixes=(".txt",),
    ),
    Adapter(
        "store", "local", "modelport.stores.local:LocalStoreFamily",
        "a local or mounted folder", suffixes=("file",),
    ),
    # Its one route is whatever the platform says, so it comes before those that own a prefix.
    Adapter(
        "protocol", "vertex", "modelport.serve.protocols.vertex:VertexAI",
        "Vertex AI custom containers: the routes that AIP_* name",
    ),
    Adapter(
        "protocol", "kserve", "modelport.serve.protocols.kserve:KServe",
        "KServe V1: model list, readiness, predict as TensorFlow Serving, and explain",
    ),
    Adapter(
        "protocol", "tfserving", "modelport.serve.protocols.tfserving:TensorFlowServing",
        "TensorFlow Serving REST v1",
    ),
    Adapter(
        "protocol", "oip", "modelport.serve.protocols.oip:OpenInference",
        "Open Inference Protocol V2 REST with the binary tensor extension",
    ),
    Adapter(
        "protocol", "sagemaker", "modelport.serve.protocols.sagemaker:SageMaker",
        "SageMaker containers: ping, invocations, multi-model endpoints",
    ),
    Adapter(
        "protocol", "mlflow", "modelport.serve.protocols.mlflow:MLflow",
        "MLflow scoring: version and health",
    ),
    Adapter(
        "protocol", "azureml", "modelport.serve.protocols.azureml:AzureML",
        "Azure ML online endpoints: scoring and health routes",
    ),
    Adapter(
        "protocol", "torchserve", "modelport.serve.protocols.torchserve:TorchServe",
        "TorchServe inference and management",
    ),
    Adapter(
        "protocol", "upload", "modelport.serve.protocols.upload:Upload",
        "files and images: POST /predict, raw or multipart",
    ),
    Adapter(
        "protocol", "service", "modelport.serve.protocols.service:Service",
        "modelport's own routes: metrics, OpenAPI, liveness",
    ),
    Adapter(
        "rpc", "oip-grpc", "modelport.serve.protocols.oip_grpc:OpenInferenceGrpc",
        "Open Inference Protocol V2 over gRPC with Triton's extensions", requires=("grpc",),
        extra="grpc",
    ),
    Adapter(
        "rpc", "tfserving-grpc", "modelport.serve.protocols.tfserving_grpc:TensorFlowServingGrpc",
        "TensorFlow Serving over gRPC", requires=("grpc",),
        extra="grpc",
    ),
    Adapter(
        "rpc", "grpc-health", "modelport.serve.protocols.grpc_health:GrpcHealth",
        "gRPC health checking", requires=("grpc",),
        extra="grpc",
    ),
    Adapter(
        "rpc", "grpc-reflection", "modelport.serve.protocols.grpc_reflection:GrpcReflection",
        "gRPC server reflection", requires=("grpc",),
        extra="grpc",
    ),
    Adapter(
        "coding", "zstd", "modelport.serve.codings.zstd:ZstdCoding",
        "bodies in zstd", requires=("zstandard",), extra="zstd",
    ),
    Adapter(
        "coding", "gzip", "modelport.serve.codings.gzip:GzipCoding",
        "bodies in gzip",
    ),
    Adapter(
        "coding", "deflate", "modelport.serve.codings.deflate:DeflateCoding",
        "bodies in deflate: zlib streams",
    ),
    Adapter(
        "body", "parquet", "modelport.serve.scoring.parquet:ParquetBody",
        "requests in Parquet", requires=("pyarrow",), extra="parquet",
    ),
    Adapter(
        "transport", "http1", "modelport.serve.transports.http1:Http1Transport",
        "HTTP/1.1 on uvloop and httptools", requires=("httptools", "uvloop"),
    ),
    Adapter(
        "transport", "http", "modelport.serve.transports.http:HttpTransport",
        "HTTP/1.1 and HTTP/2 on Granian (RSGI)", requires=("granian", "uvloop"),
    ),
    Adapter(
        "transport", "grpc", "modelport.serve.transports.grpc:GrpcTransport",
        "gRPC on grpcio's threads", requires=("grpc",), extra="grpc",
    ),
    Adapter(
        "pass", "load", "modelport.optimize.passes.load:LoadPass",
        "the graph as it is after every start, made once", requires=("onnx", "onnxruntime"),
        extra="optimize",
    ),
    Adapter(
        "pass", "bulk", "modelport.optimize.passes.bulk:BulkPass",
        "tree ensembles by two runtimes, chosen by the number of rows",
        requires=("onnx", "onnxruntime", "xgboost"), extra="forest",
    ),
    Adapter(
        "pass", "channels", "modelport.optimize.passes.channels:ChannelsPass",
        "fewer channels and neurons, trained on the original's answers",
        requires=("onnx", "onnxruntime", "torch"), extra="distil",
    ),
    Adapter(
        "pass", "layers", "modelport.optimize.passes.layers:LayersPass",
        "fewer residual blocks and encoder layers, trained on the original's answers",
        requires=("onnx", "onnxruntime", "torch"), extra="distil",
    ),
    Adapter(
        "pass", "network-student", "modelport.optimize.passes.network_student:NetworkStudentPass",
        "a small network that learns what a recurrent or unknown one answers",
        requires=("onnx", "onnxruntime", "torch"), extra="distil",
    ),
    Adapter(
        "pass", "prune", "modelport.optimize.passes.prune:PrunePass",
        "most weights zero, stored as numbers and places, trained on the original's answers",
        requires=("onnx", "onnxruntime", "torch"), extra="distil",
    ),
    Adapter(
        "pass", "float16", "modelport.optimize.passes.float16:Float16Pass",
        "weights as float16", requires=("ml_dtypes", "onnx", "onnxruntime"), extra="optimize",
    ),
    Adapter(
        "pass", "int8-dynamic", "modelport.optimize.passes.int8_dynamic:Int8DynamicPass",
        "int8 weights, ranges at run time: matrices", requires=("onnx", "onnxruntime"),
        extra="optimize",
    ),
    Adapter(
        "pass", "int8-static", "modelport.optimize.passes.int8_static:Int8StaticPass",
        "int8 with calibrated ranges: convolutions and perceptrons",
        requires=("onnx", "onnxruntime"), extra="optimize",
    ),
    Adapter(
        "pass", "trees", "modelport.optimize.passes.trees:TreesPass",
        "fewer trees and splits, with votes refitted to the original's sums",
        requires=("onnx", "onnxruntime"), extra="optimize",
    ),
    Adapter(
        "pass", "dead-features", "modelport.optimize.passes.dead_features:DeadFeaturesPass",
        "columns that nothing uses, scalers folded into models", requires=("onnx", "onnxruntime"),
        extra="optimize",
    ),
    Adapter(
        "pass", "linear", "modelport.optimize.passes.linear:LinearPass",
        "fewer columns of linear models, fewer support vectors", requires=("onnx", "onnxruntime"),
        extra="optimize",
    ),
    Adapter(
        "pass", "student", "modelport.optimize.passes.student:StudentPass",
        "small trees and linear models taught by a model for tables",
        requires=("onnx", "onnxruntime", "sklearn"), extra="sklearn",
    ),
    Adapter(
        "pass", "vocabulary", "modelport.optimize.passes.vocabulary:VocabularyPass",
        "fewer terms of text models, with weights refitted to the original's scores",
        requires=("onnx", "onnxruntime"), extra="optimize",
    ),
    Adapter(
        "pass", "weight-only", "modelport.optimize.passes.weight_only:WeightOnlyPass",
        "matrices of 8 or 4 bits, activations as they are", requires=("onnx", "onnxruntime"),
        extra="optimize",
    ),
    Adapter(
        "pass", "own-student", "modelport.optimize.passes.own_student:OwnStudentPass",
        "a network of your own that learns the model's answers (--student)",
        requires=("onnx", "onnxruntime"), extra="optimize",
    ),
    Adapter(
        "teacher", "keras", "modelport.optimize.teachers.keras:KerasTeacher",
        "Keras models as students", requires=("keras", "tensorflow"), extra="keras",
    ),
    Adapter(
        "teacher", "torch", "modelport.optimize.teachers.torch:TorchTeacher",
        "PyTorch modules as students", requires=("torch",), extra="torch",
    ),
    Adapter(
        "plot", "frontier", "modelport.optimize.plot:FrontierPlot",
        "the frontier as SVG and PNG", requires=("matplotlib",), extra="optimize",
    ),
    Adapter(
        "target", "docker", "modelport.deploy.targets.docker:DockerTarget",
        "Docker or Podman on one machine", requires=("yaml",), extra="deploy",
    ),
    Adapter(
        "target", "compose", "modelport.deploy.targets.compose:ComposeTarget",
        "Docker Compose: server, TLS front, Prometheus", requires=("yaml",), extra="deploy",
    ),
    Adapter(
        "target", "kubernetes", "modelport.deploy.targets.kubernetes:KubernetesTarget",
        "Kubernetes manifests and a Helm chart", requires=("yaml",), extra="deploy",
    ),
    Adapter(
        "target", "kserve", "modelport.deploy.targets.kserve:KserveTarget",
        "KServe InferenceService with its ServingRuntime", requires=("yaml",), extra="deploy",
    ),
    Adapter(
        "target", "cloudrun", "modelport.deploy.targets.cloudrun:CloudRunTarget",
        "Google Cloud Run, and Knative", requires=("yaml",), extra="deploy",
    ),
    Adapter(
        "target", "lambda", "modelport.deploy.targets.awslambda:LambdaTarget",
        "AWS Lambda behind API Gateway, as a SAM template", requires=("yaml",), extra="deploy",
    ),
    Adapter(
        "target", "azure-functions", "modelport.deploy.targets.azurefunctions:AzureFunctionsTarget",
        "Azure Functions, as code on Flex Consumption", requires=("yaml",), extra="deploy",
    ),
    Adapter(
        "target", "sagemaker", "modelport.deploy.targets.sagemaker:SageMakerTarget",
        "Amazon SageMaker endpoints and batch transform", requires=("yaml",), extra="deploy",
    ),
    Adapter(
        "target", "vertex", "modelport.deploy.targets.vertex:VertexTarget",
        "Vertex AI endpoints", requires=("yaml",), extra="deploy",
    ),
    Adapter(
        "target", "azureml", "modelport.deploy.targets.azureml:AzureMLTarget",
        "Azure ML managed online endpoints", requires=("yaml",), extra="deploy",
    ),
    Adapter(
        "applier", "command", "modelport.deploy.appliers.command:CommandApplier",
        "the command line of Docker or Podman",
    ),
    Adapter(
        "applier", "kubernetes", "modelport.deploy.appliers.kubernetes:KubernetesApplier",
        "any object, by server-side apply", requires=("kubernetes", "yaml"),
        extra="kubernetes",
    ),
    Adapter(
        "applier", "aws", "modelport.deploy.appliers.aws:AwsApplier",
        "boto3", requires=("boto3",), extra="aws",
    ),
    Adapter(
        "applier", "google", "modelport.deploy.appliers.google:GoogleApplier",
        "Google Cloud's clients",
        requires=("google.auth", "google.cloud.aiplatform_v1", "google.cloud.run_v2", "grpc",
                  "yaml"),
        extra="google",
    ),
    Adapter(
        "applier", "azureml", "modelport.deploy.appliers.azureml:AzureMLApplier",
        "Azure ML's client",
        requires=("azure.ai.ml", "azure.identity", "yaml"), extra="azureml",
    ),
    Adapter(
        "applier", "azure", "modelport.deploy.appliers.azure:AzureApplier",
        "Azure Resource Manager templates",
        requires=("azure.mgmt.resource", "azure.identity"), extra="azure",
    ),
    Adapter(
        "access", "sagemaker", "modelport.deploy.access.sagemaker:SageMakerAccess",
        "sagemaker://REGION/ENDPOINT, through boto3", requires=("boto3",), extra="aws",
        suffixes=("sagemaker",),
    ),
    Adapter(
        "access", "lambda", "modelport.deploy.access.awslambda:LambdaAccess",
        "lambda://REGION/FUNCTION, through boto3", requires=("boto3",), extra="aws",
        suffixes=("lambda",),
    ),
    Adapter(
        "access", "google", "modelport.deploy.access.google:GoogleAccess",
        "Vertex AI and Cloud Run, with application default credentials",
        requires=("google.auth",), extra="google",
    ),
    Adapter(
        "access", "azure", "modelport.deploy.access.azure:AzureAccess",
        "Azure ML, with azure-identity", requires=("azure.identity",), extra="azureml",
    ),
    Adapter(
        "demo", "digits", "modelport.demo.digits:DigitsDemo",
        "scikit-learn's handwritten digits",
        requires=("sklearn", "skl2onnx", "onnx"), extra="sklearn",
    ),
)  # fmt: skip


def adapters_of(kind: str) -> list[Adapter]:
    """All records of one kind, in table order."""
    return [adapter for adapter in TABLE if adapter.kind == kind]


def find_adapter(kind: str, name: str) -> Adapter:
    """The record of that kind and name.

    Raises
    ------
    NotFoundError
        Listing the names that exist.
    """
    for adapter in adapters_of(kind):
        if adapter.name == name:
            return adapter
    raise NotFoundError(kind, name, [adapter.name for adapter in adapters_of(kind)])


def adapters_for_suffix(kind: str, suffix: str) -> list[Adapter]:
    """Records of one kind that answer for a file ending or URL scheme."""
    return [adapter for adapter in adapters_of(kind) if suffix.lower() in adapter.suffixes]


def suffix_of(path: PurePath) -> str:
    """The ending by which adapters are chosen."""
    return path.suffix.lower()
