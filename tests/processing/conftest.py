"""Trained models that take tensors, and the images, mails and rows that people have."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from real_models import real
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from modelport.core.tensors import Array

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TOKENS = 64

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def encode(pixels: Array, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def ask(model: bytes, **inputs: Array) -> dict[str, Array]:
    """ONNX Runtime itself."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
    **weights: Array,
) -> bytes:
    def values(side: dict[str, tuple[int, list[int | str]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in side.items()]

    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "trained",
            values(inputs),
            values(outputs),
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString()
    return content


@pytest.fixture(scope="session")
def digit_pixels() -> tuple[Array, Array]:
    """Scikit-learn's digits as grey pixels of 8 bits, and what they are."""
    data, target = load_digits(return_X_y=True)
    return np.round(data * 255 / 16).astype(np.uint8).reshape(-1, 8, 8), target


@pytest.fixture(scope="session")
def digit_files(
    digit_pixels: tuple[Array, Array], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder for each digit, with PNG files."""
    folder = tmp_path_factory.mktemp("digits")
    for number in range(60):
        pixels, digit = digit_pixels[0][number], digit_pixels[1][number]
        path = folder / DIGITS[digit] / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(pixels))
    return folder


def train(features: Array, target: Array) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(max_iter=300).fit(features, target)


@pytest.fixture(scope="session")
def cnn(digit_pixels: tuple[Array, Array]) -> bytes:
    """A convolution of fixed filters, and a classifier trained on what they see: logits.

    It takes colour images ``[N, 3, 8, 8]`` that are normalised as torchvision does.
    """
    pixels, target = digit_pixels
    colour = np.repeat(pixels[:, np.newaxis], 3, axis=1).astype(np.float32) / 255
    statistics = [np.reshape(v, (1, 3, 1, 1)).astype(np.float32) for v in (MEAN, STD)]
    scaled = (colour - statistics[0]) / statistics[1]
    filters = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    convolve = [
        helper.make_node("Conv", ["pixels", "filters"], ["seen"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["seen"], ["active"]),
        helper.make_node("Flatten", ["active"], ["features"]),
    ]
    taken = {"pixels": (TensorProto.FLOAT, ["N", 3, 8, 8])}
    eyes = graph(convolve, taken, {"features": (TensorProto.FLOAT, ["N", 512])}, filters=filters)
    classifier = train(ask(eyes, pixels=scaled)["features"], target)
    decide = helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"], transB=1)
    return graph(
        [*convolve, decide],
        taken,
        {"logits": (TensorProto.FLOAT, ["N", 10])},
        filters=filters,
        weights=classifier.coef_.astype(np.float32),
        bias=classifier.intercept_.astype(np.float32),
    )


@pytest.fixture(scope="session")
def cnn_input() -> Callable[[list[bytes]], Array]:
    """What the network takes, of encoded images of 8×8 pixels: written without modelport."""

    def compute(encoded: list[bytes]) -> Array:
        rows = []
        for data in encoded:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            assert image.size == (8, 8)
            array = np.asarray(image, dtype=np.float32) / np.float32(255)
            array = (array - np.float32(MEAN)) / np.float32(STD)
            rows.append(array.transpose(2, 0, 1))
        return np.stack(rows)

    return compute


@pytest.fixture(scope="session")
def mails() -> tuple[list[str], Array]:
    """Real mails, and which of them are spam."""
    folder = real("datasets-spam-assassin", "package", "data")
    texts, spam = [], []
    for group, is_spam in (("easy-ham-1", 0), ("spam-1", 1)):
        for path in sorted((folder / group).glob("*.txt"))[:150]:
            text = path.read_text(encoding="utf-8", errors="replace")
            texts.append(text.partition("\n\n")[2][:2000])
            spam.append(is_spam)
    return texts, np.array(spam)


@pytest.fixture(scope="session")
def tokenizer_file(
    mails: tuple[list[str], Array], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A WordPiece tokenizer that was trained on the mails."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=1500, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(mails[0], trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def spam_model(mails: tuple[list[str], Array], tokenizer_file: Path) -> bytes:
    """Adds up a weight per token: one logit per mail, with the names that BERT models have."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    size = tokenizer.get_vocab_size()
    counts = np.zeros((len(mails[0]), size), dtype=np.float32)
    for row, text in enumerate(mails[0]):
        np.add.at(counts[row], tokenizer.encode(text).ids[:TOKENS], 1)
    classifier = train(counts, mails[1])
    taken = (TensorProto.INT64, ["batch", "tokens"])
    return graph(
        [
            helper.make_node("Gather", ["weights", "input_ids"], ["each"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["each", "mask"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "axes"], ["sum"], keepdims=1),
            helper.make_node("Add", ["sum", "bias"], ["logit"]),
        ],
        {"input_ids": taken, "attention_mask": taken},
        {"logit": (TensorProto.FLOAT, ["batch", 1])},
        weights=classifier.coef_[0].astype(np.float32),
        bias=classifier.intercept_.astype(np.float32),
        axes=np.array([1]),
    )


@pytest.fixture(scope="session")
def word_list(mails: tuple[list[str], Array], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commonest words of the mails, one per line."""
    vectorizer = CountVectorizer(max_features=300, token_pattern=r"[a-z]+").fit(mails[0])
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("\n".join(sorted(vectorizer.vocabulary_)) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[[str, object], Path]:
    def write(name: str, document: object) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return write
