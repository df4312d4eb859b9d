"""Networks of PyTorch, Keras and scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from modelport.core.tensors import Array
from tests.optimize.drawn import TOPICS, WORDS, Columns, Drawn, digits, documents, named, table
from tests.optimize.made import Made


def fitted(
    build: Callable[[], nn.Module],
    inputs: Columns,
    answers: Array,
    epochs: int,
    *,
    rate: float = 4e-3,
) -> nn.Module:
    """Trained to name the class, or to give the number."""
    torch.manual_seed(0)
    module = build()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them wait for each other on a busy machine
    given = [torch.tensor(array) for array in inputs.values()]
    numbers = answers.dtype.kind == "f"
    wanted = torch.tensor(answers, dtype=torch.float32 if numbers else torch.int64)
    judge = nn.functional.mse_loss if numbers else nn.functional.cross_entropy
    optimizer = torch.optim.Adam(module.parameters(), rate)
    module.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(wanted)).split(64):
            loss = judge(module(*(array[chosen] for array in given)), wanted[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.set_num_threads(threads)
    return module.eval()


class Convolutions(nn.Module):
    """With batch norms, a residual and a depthwise convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width), nn.ReLU6(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.wide = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.classifier = nn.Linear(2 * width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        x = self.wide((x + self.inner(x)).relu()).relu()
        return self.classifier(x.mean(dim=(2, 3)))


class Recurrent(nn.Module):
    """Reads an image line by line."""

    def __init__(self, kind: type[nn.RNNBase], side: int, width: int, both: bool) -> None:
        super().__init__()
        self.cell = kind(side, width, batch_first=True, bidirectional=both)
        self.classifier = nn.Linear(2 * width if both else width, 10)

    def forward(self, lines: torch.Tensor) -> torch.Tensor:
        states, _ = self.cell(lines)
        return self.classifier(states.mean(1))


class Encoder(nn.Module):
    """A transformer of tokens with a mask; any number of tokens."""

    def __init__(self, width: int, layers: int, outputs: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS + 1, width), nn.Embedding(64, width)
        layer = nn.TransformerEncoderLayer(
            width, max(2, width // 64), 4 * width, dropout=0.0, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.classifier = nn.Linear(width, outputs)
        self.unit = False

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        x = self.encoder(x, src_key_padding_mask=mask == 0)
        weights = mask.unsqueeze(-1).float()
        mean = (x * weights).sum(1) / weights.sum(1)
        return nn.functional.normalize(mean, dim=1) if self.unit else self.classifier(mean)


def cnn(size: int) -> Made:
    """Convolutions of PyTorch."""
    side = 8 if size == 1 else 16

    def draw(count: int, seed: int) -> Drawn:
        images, labels = digits(count, seed, side)
        return {"": images[:, None]}, labels

    rows, labels = draw(1500, 2)
    return Made(
        fitted(lambda: Convolutions(16 * size), {"x": rows[""]}, labels, 8, rate=4e-3 / size**0.5),
        draw,
    )


def _keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.utils.set_random_seed(0)
    return keras


def keras_cnn(size: int) -> Made:
    """Convolutions of Keras, channels last."""
    keras = _keras()
    side = 8 if size == 1 else 16

    def draw(count: int, seed: int) -> Drawn:
        images, labels = digits(count, seed, side)
        return {"": images[..., None]}, labels

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((side, side, 1)),
            layers.Conv2D(16 * size, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(32 * size, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    rows, labels = draw(1500, 2)
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(rows[""], labels, epochs=15, verbose=0)
    return Made(model, draw)


def keras_numbers(size: int) -> Made:
    """A perceptron of Keras that answers a number; its weights are far larger than its inputs."""
    keras = _keras()
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(64 * size, activation="gelu"),
            layers.LayerNormalization(),
            layers.Dense(64 * size, activation="relu"),
            layers.Dense(1),
        ]
    )
    rows, answers = table(3000, 2)
    model.compile(keras.optimizers.Adam(3e-3), "mse")
    model.fit(rows, answers, epochs=8, verbose=0)
    return Made(model, named("", table), numbers=True)


def _recurrent(kind: type[nn.RNNBase], size: int, both: bool) -> Made:
    side = 8 if size == 1 else 16
    rows, labels = digits(2500, 2, side)
    module = fitted(lambda: Recurrent(kind, side, 32 * size, both), {"x": rows}, labels, 16)
    return Made(
        module,
        named("", lambda count, seed: digits(count, seed, side)),
    )


def lstm(size: int) -> Made:
    """An LSTM that reads in both directions."""
    return _recurrent(nn.LSTM, size, both=True)


def gru(size: int) -> Made:
    """A GRU."""
    return _recurrent(nn.GRU, size, both=False)


def _tokens(count: int, seed: int) -> Drawn:
    texts, labels = documents(count, seed)
    ids = np.full((count, 24), WORDS)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
    return {"ids": ids, "mask": (ids != WORDS).astype(np.int64)}, labels


def _encoder(size: int) -> Encoder:
    rows, labels = _tokens(2000, 2)
    module = fitted(
        lambda: Encoder(32 * size, 2 if size == 1 else 4, TOPICS), rows, labels, 5, rate=2e-3
    )
    assert isinstance(module, Encoder)
    return module


def transformer(size: int) -> Made:
    """An encoder of tokens and a mask that names the topic."""
    return Made(_encoder(size), _tokens)


def vectors(size: int) -> Made:
    """The same without its last layer: it answers vectors of length one, and has no labels."""
    module = _encoder(size)
    module.unit = True
    return Made(module, _tokens, vectors=True)
