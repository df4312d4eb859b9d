"""Networks for the tests: trained on the spot on real data, or with the code to published weights.

The published packages are not installed; what is here is the least that their weights need, by
the same names.
"""

from __future__ import annotations

import ast
import sys
from typing import NamedTuple

import torch
from real_models import real
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

EPOCHS = 60


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def trained(module: nn.Module, *inputs: torch.Tensor, epochs: int = EPOCHS) -> nn.Module:
    """Trained to name the digit; left in training mode, as people save it."""
    torch.manual_seed(0)
    _, labels = digits()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    module.train()
    for _ in range(epochs):
        optimizer.zero_grad()
        result = module(*inputs)
        logits = result if isinstance(result, torch.Tensor) else next(iter(result.values()))
        functional.cross_entropy(logits, labels[: len(logits)]).backward()
        optimizer.step()
    return module


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10)
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layers(pixels)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classifier = nn.Linear(8, 10)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        pooled = self.features(image).mean(dim=(2, 3))
        return {"logits": self.classifier(pooled), "features": pooled}


class Recurrent(nn.Module):
    """Reads the rows of an image one after the other."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.cell = kind(8, 16, num_layers=2, batch_first=True, bidirectional=True, dropout=0.3)
        self.classifier = nn.Linear(32, 10)

    def forward(self, lines: torch.Tensor) -> torch.Tensor:
        states, _ = self.cell(lines)
        return self.classifier(states[:, -1])


class Attentive(nn.Module):
    """A Transformer on tokens: sixteen grey levels, in 64 places."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(17, 16)
        self.places = nn.Embedding(80, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.classifier = nn.Linear(16, 10)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        embedded = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        encoded = self.encoder(embedded, src_key_padding_mask=mask == 0)
        weights = mask.unsqueeze(-1).float()
        return self.classifier((encoded * weights).sum(1) / weights.sum(1))


class Answers(NamedTuple):
    logits: torch.Tensor
    pieces: tuple[torch.Tensor, torch.Tensor]
    nothing: None


class ManyEnds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.upper, self.lower = nn.Linear(32, 16), nn.Linear(32, 16)
        self.classifier = nn.Linear(32, 10)

    def forward(
        self, upper: torch.Tensor, lower: torch.Tensor, scale: torch.Tensor | None = None
    ) -> Answers:
        pieces = self.upper(upper).relu(), self.lower(lower).relu()
        logits = self.classifier(torch.cat(pieces, dim=1))
        return Answers(logits if scale is None else logits * scale[:, None], pieces, None)


class Generator(nn.Module):
    """Of a GAN: from noise to images."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(12, 16, 4), nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.layers(noise[:, :, None, None])


def trained_generator(steps: int = 30) -> nn.Module:
    torch.manual_seed(0)
    generator = Generator()
    critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    images = digits()[0].reshape(-1, 1, 8, 8) * 2 - 1
    one = torch.optim.Adam(generator.parameters(), lr=0.002)
    other = torch.optim.Adam(critic.parameters(), lr=0.002)
    for step in range(steps):
        real_images = images[step * 32 : step * 32 + 32]
        made = generator(torch.randn(len(real_images), 12))
        other.zero_grad()
        (functional.softplus(-critic(real_images)) + functional.softplus(critic(made.detach()))
         ).mean().backward()  # fmt: skip
        other.step()
        one.zero_grad()
        functional.softplus(-critic(made)).mean().backward()
        one.step()
    return generator


class Branching(nn.Module):
    """Its answer depends on a branch that a trace would freeze."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        if bool(x.sum() > 0):
            y = y * 2
        return y


class AlwaysDropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(self.linear(x), 0.5, training=True)


class Counting(nn.Module):
    """Keeps a state between calls."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.linear(x) * self.calls


class Needy(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2)


NOT_CALLABLE = 3


def not_a_module() -> int:
    return 3


def efficientnet() -> nn.Module:
    """The package's own code."""
    folder = str(real("efficientnet-lite-pytorch"))
    sys.path.insert(0, folder)
    try:
        from efficientnet_lite_pytorch import EfficientNet
    finally:
        sys.path.remove(folder)
    return EfficientNet.from_name("efficientnet-lite0")


def _classes_of(*parts: str) -> dict[str, type[nn.Module]]:
    """The classes of a file, without its imports: those want packages that are not here."""
    tree = ast.parse(real(*parts).read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    space = {"torch": torch, "nn": nn, "F": functional, "functools": __import__("functools")}
    space["torchcrepe"] = type("torchcrepe", (), {"PITCH_BINS": 360})
    exec(compile(tree, parts[-1], "exec"), space)
    return space


def pnet() -> nn.Module:
    return _classes_of("facenet-pytorch", "facenet_pytorch", "models", "mtcnn.py")["PNet"](False)


def rnet() -> nn.Module:
    return _classes_of("facenet-pytorch", "facenet_pytorch", "models", "mtcnn.py")["RNet"](False)


def onet() -> nn.Module:
    return _classes_of("facenet-pytorch", "facenet_pytorch", "models", "mtcnn.py")["ONet"](False)


def crepe() -> nn.Module:
    return _classes_of("torchcrepe", "torchcrepe", "model.py")["Crepe"]("tiny")


class Voice(nn.Module):
    """Silero's voice detector, with its state as input and output."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(
        self, sound: torch.Tensor, h: torch.Tensor, c: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        x = functional.pad(sound, (0, 64), mode="reflect").unsqueeze(1)
        x = self.stft_conv(x)
        x = (x[:, :129] ** 2 + x[:, 129:] ** 2).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        h, c = self.lstm_cell(x.squeeze(-1), (h, c))
        speech = self.final_conv(h.unsqueeze(-1).relu()).sigmoid().squeeze(1).mean(1, keepdim=True)
        return {"speech": speech, "h": h, "c": c}


def _dense(inputs: int, outputs: int, normalised: int = 0) -> nn.ModuleDict:
    parts = {"dense": nn.Linear(inputs, outputs)}
    if normalised:
        parts["LayerNorm"] = nn.LayerNorm(normalised, eps=1e-12)
    return nn.ModuleDict(parts)


class EncoderLayer(nn.Module):
    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        names = ("query", "key", "value")
        own = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.attention = nn.ModuleDict({"self": own, "output": _dense(width, width, width)})
        self.intermediate = _dense(width, inner)
        self.output = _dense(inner, width, width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        count, length, width = x.shape
        q, k, v = (
            layer(x).view(count, length, self.heads, -1).transpose(1, 2)
            for layer in self.attention["self"].values()
        )
        scores = q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5 + bias
        mixed = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(count, length, width)
        out = self.attention["output"]
        x = out["LayerNorm"](out["dense"](mixed) + x)
        inner = functional.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](self.output["dense"](inner) + x)


class SentenceEncoder(nn.Module):
    """all-MiniLM-L6-v2: a BERT encoder, mean pooling, unit length."""

    def __init__(self) -> None:
        super().__init__()
        width = 384
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(30522, width),
                "position_embeddings": nn.Embedding(512, width),
                "token_type_embeddings": nn.Embedding(2, width),
                "LayerNorm": nn.LayerNorm(width, eps=1e-12),
            }
        )
        self.embeddings.register_buffer("position_ids", torch.arange(512)[None])
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(EncoderLayer(width, 1536, 12) for _ in range(6))}
        )
        self.pooler = _dense(width, width)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        parts = self.embeddings
        positions = parts.position_ids[:, : input_ids.shape[1]]
        x = parts["word_embeddings"](input_ids) + parts["position_embeddings"](positions)
        x = x + parts["token_type_embeddings"](torch.zeros_like(input_ids))
        x = parts["LayerNorm"](x)
        bias = (1.0 - attention_mask[:, None, None, :].float()) * -1e9
        for layer in self.encoder["layer"]:
            x = layer(x, bias)
        weights = attention_mask.unsqueeze(-1).float()
        mean = (x * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return functional.normalize(mean, dim=1)
