"""Which operations the graph of a TensorFlow model may have.

Operations are not code of the file: they are TensorFlow's own, and most only compute. Some read
and write files, call Python, load libraries or talk to other machines; those are refused by
category, and so is every name that TensorFlow does not have, which a library would have to bring.
``operations.txt`` has the names of all others; ``tests/scan`` holds both against the installed
version.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Final

#: The first pattern that an operation's whole name fits says why it is refused.
DENIED: Final[tuple[tuple[str, str], ...]] = (
    (
        r"PyFunc|EagerPyFunc|PyFuncStateless|GeneratorDataset",
        "it calls Python",
    ),
    (
        r"WriteFile|Save|SaveSlices|DTensorRestoreV2|DistributedSave|DumpTensor|Write.*Summary"
        r"|WriteSummary|CreateSummary.*|SummaryWriter|(Flush|Close)SummaryWriter|ImportEvent"
        r"|CalibrationStatisticsSaver|StoreMinibatchStatisticsInFdo|StatsAggregatorSetSummaryWriter|CustomAggregator",
        "it writes files",
    ),
    (
        r"ReadFile|MatchingFiles|ImmutableConst|Restore|RestoreSlice|LoadAndRemapMatrix"
        r"|GenerateVocabRemapping|RecordInput|Skipgram|.*Reader(V2)?|Reader.*",
        "it reads files",
    ),
    (
        r".*Dataset.*|.*Iterator.*|OptionalFromValue|OptionalGetValue",
        "it is part of a data pipeline, which may read files",
    ),
    (r"Debug.*|FileSystemSetConfiguration|Copy|CopyHost", "it sends values elsewhere"),
    (
        r"_?(Send|Recv|HostSend|HostRecv)|Rpc.*|DeleteRpc.*|Collective.*|Nccl.*|_Nccl.*|RemoteCall"
        r"|.*Distributed.*|.*TPU.*|Tpu.*|WorkerHeartbeat|DTensor.*|.*Infeed.*|.*Outfeed.*"
        r"|UpdateTaskIdAndGlobalCoreArray|GlobalIterId|AllToAll|CrossReplicaSum"
        r"|Prelinearize.*|CopyToMesh.*|Relayout.*|GetTpuTaskId",
        "it talks to other machines",
    ),
    (
        r"Xla.*|_Xla.*|Mlir.*|_Mlir.*|RiscWhile",
        "it runs compiled code out of the file",
    ),
    (r"Abort|TestAttr|SleepOp|SleepIdentityOp", "it stops the process"),
)
_DENIED: Final = tuple((re.compile(pattern), why) for pattern, why in DENIED)

#: Operations with the number of each input that is a path of a checkpoint.
CHECKPOINT_PATHS: Final = {"SaveV2": (0,), "RestoreV2": (0,), "MergeV2Checkpoints": (0, 1)}
#: Operations with the number of the input that is a file of words.
ASSET_PATHS: Final = {"InitializeTableFromTextFile": (1,), "InitializeTableFromTextFileV2": (1,)}
#: Text attributes that may name a file, with the values that name none.
FILE_ATTRIBUTES: Final = {
    ("PrintV2", "output_stream"): frozenset(
        {"stderr", "stdout", "log(info)", "log(warning)", "log(error)"}
    ),
    ("DecodeProtoV2", "descriptor_source"): frozenset({"", "local://"}),
    ("EncodeProto", "descriptor_source"): frozenset({"", "local://"}),
    ("FixedUnigramCandidateSampler", "vocab_file"): frozenset({""}),
}


@cache
def _known() -> frozenset[str]:
    text = files("modelport.scan.tensorflow").joinpath("operations.txt").read_text(encoding="ascii")
    return frozenset(line for line in text.splitlines() if not line.startswith("#"))


def operation_problem(name: str) -> str:
    """Why an operation is refused whatever its inputs are; empty when it only computes."""
    if name in _known():
        return ""
    for pattern, why in _DENIED:
        if pattern.fullmatch(name):
            return why
    return "not one of TensorFlow's public operations: a library would bring it"
