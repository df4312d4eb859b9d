"""Keras models trained on real data, small enough to train in seconds."""

from __future__ import annotations

import email
import json
import re
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
from real_models import real
from sklearn.datasets import load_digits

WORDS = 500
LENGTH = 40


def fit(model: Any, inputs: Any, targets: Any, loss: Any, epochs: int = 5) -> Any:
    """Train; XLA would compile longer than that takes."""
    import keras

    keras.utils.set_random_seed(1)
    model.compile(keras.optimizers.Adam(5e-3), loss, jit_compile=False)
    model.fit(inputs, targets, epochs=epochs, batch_size=64, verbose=0)
    return model


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 images of 8 x 8 pixels up to 16, and their digits."""
    pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.float32), labels


@cache
def mnist(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Images of 28 x 28 x 1 pixels up to 1, so many of each digit, shuffled."""
    images = [
        np.reshape(
            json.loads(real("mnist", "package", "src", "digits", f"{d}.json").read_text())["data"],
            (-1, 28, 28, 1),
        )[:count]
        for d in range(10)
    ]
    order = np.random.default_rng(0).permutation(10 * count)
    labels = np.repeat(np.arange(10), count)[order]
    return np.concatenate(images).astype(np.float32)[order], labels


@cache
def mails(count: int = 400) -> tuple[list[list[str]], np.ndarray]:
    """Words of the subject and the beginning of mails; 1 for spam."""
    texts, labels = [], []
    for label, folder in enumerate(("easy-ham-1", "spam-1")):
        paths = sorted(real("datasets-spam-assassin", "package", "data", folder).glob("*.txt"))
        for path in paths[: count // 2]:
            mail = email.message_from_bytes(path.read_bytes())
            body = mail.get_payload(decode=True) or b""
            text = f"{mail['subject']} {body[:2000].decode('latin-1')}"
            texts.append(re.findall(r"[a-z]{2,}", text.lower()))
            labels.append(label)
    return texts, np.asarray(labels)


@cache
def mail_identifiers(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Identifiers of the commonest words, 0 after the end; 1 for spam."""
    texts, labels = mails(count)
    common = Counter(word for text in texts for word in text).most_common(WORDS - 1)
    number = {word: i + 1 for i, (word, _) in enumerate(common)}
    rows = np.zeros((len(texts), LENGTH), dtype=np.int32)
    for row, text in zip(rows, texts, strict=True):
        known = [number[word] for word in text if word in number][:LENGTH]
        row[: len(known)] = known
    return rows, labels


@cache
def dense_classifier() -> Any:
    """Rescaling, GELU, batch normalisation, dropout, softmax, on digits."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((64,), name="pixels"),
            layers.Rescaling(1 / 16),
            layers.Dense(48, activation="gelu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="dense_classifier",
    )
    return fit(model, *digits(), "sparse_categorical_crossentropy", epochs=8)


@cache
def convolutional_classifier() -> Any:
    """Convolutions and pooling on MNIST, any image size."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((None, None, 1), name="image"),
            layers.RandomTranslation(0.02, 0.02),
            layers.Conv2D(8, 5, strides=2, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.SeparableConv2D(32, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    return fit(model, *mnist(), "sparse_categorical_crossentropy", epochs=6)


@cache
def recurrent_classifier() -> Any:
    """LSTM in both directions and GRU over the rows of digits, any number of rows."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((None, 8), name="rows"),
            layers.Rescaling(1 / 16),
            layers.Bidirectional(layers.LSTM(12, return_sequences=True)),
            layers.GRU(16),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    pixels, labels = digits()
    return fit(model, pixels.reshape(-1, 8, 8), labels, "sparse_categorical_crossentropy")


@cache
def text_classifier() -> Any:
    """An embedding with a mask and an LSTM on the words of mails, any number of words."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="words"),
            layers.Embedding(WORDS, 8, mask_zero=True),
            layers.LSTM(8),
            layers.Dense(1, activation="sigmoid", name="spam"),
        ]
    )
    return fit(model, *mail_identifiers(), "binary_crossentropy", epochs=4)


@cache
def signal_regressor() -> Any:
    """Causal convolutions over pixels as a signal of any length; predicts the mean digit."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((None, 1), name="signal"),
            layers.Conv1D(8, 5, padding="causal", activation="tanh"),
            layers.Conv1D(8, 3, dilation_rate=2, activation="leaky_relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(1, name="value"),
        ]
    )
    pixels, labels = digits()
    return fit(model, pixels[..., None] / 16, labels.astype(np.float32), "mse", epochs=2)


@cache
def many_to_many() -> Any:
    """Two inputs by name; a dictionary of two outputs."""
    import keras
    from keras import layers

    image = keras.Input((8, 8, 1), name="image")
    margins = keras.Input((16,), name="margins")
    seen = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(image))
    both = layers.Concatenate()([seen, layers.Dense(8)(margins)])
    hidden = layers.LayerNormalization()(layers.Dense(24, activation="silu")(both))
    model = keras.Model(
        {"image": image, "margins": margins},
        {
            "digit": layers.Dense(10, activation="softmax")(hidden),
            "again": layers.Reshape((8, 8))(layers.Dense(64)(hidden)),
        },
    )
    pixels, labels = digits()
    targets = {"digit": labels, "again": pixels.reshape(-1, 8, 8) / 16}
    losses = {"digit": "sparse_categorical_crossentropy", "again": "mse"}
    return fit(model, split_digits(), targets, losses, epochs=3)


def split_digits() -> dict[str, np.ndarray]:
    """Digits as `many_to_many` takes them."""
    images = digits()[0].reshape(-1, 8, 8) / 16
    margins = np.concatenate([images.sum(axis=1), images.sum(axis=2)], axis=1)
    return {"image": images[..., None], "margins": margins}


@cache
def generator() -> Any:
    """The generator of a GAN for digits, after some steps of training against its judge."""
    import keras
    import tensorflow as tf
    from keras import layers

    keras.utils.set_random_seed(2)
    made = keras.Sequential(
        [
            keras.Input((12,), name="noise"),
            layers.Dense(2 * 2 * 16),
            layers.LeakyReLU(),
            layers.Reshape((2, 2, 16)),
            layers.Conv2DTranspose(8, 4, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="tanh",
                                   name="image"),
        ]
    )  # fmt: skip
    judge = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(8, 3, strides=2), layers.LeakyReLU(),
         layers.Flatten(), layers.Dense(1)]
    )  # fmt: skip
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    optimizers = keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-3)
    for optimizer, model in zip(optimizers, (made, judge), strict=True):
        optimizer.build(model.trainable_variables)

    @tf.function
    def step(real_images: Any) -> None:
        with tf.GradientTape(persistent=True) as tape:
            fake = made(tf.random.normal((len(real_images), 12)), training=True)
            says_fake, says_real = judge(fake, training=True), judge(real_images, training=True)
            fooled = loss(tf.ones_like(says_fake), says_fake)
            caught = loss(tf.zeros_like(says_fake), says_fake)
            caught += loss(tf.ones_like(says_real), says_real)
        for optimizer, model, value in zip(
            optimizers, (made, judge), (fooled, caught), strict=True
        ):
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(value, variables), variables)

    images = digits()[0].reshape(-1, 8, 8, 1) / 8 - 1
    for start in range(0, 1792, 64):
        step(tf.constant(images[start : start + 64]))
    return made


@cache
def preprocessing_classifier() -> Any:
    """Statistics, buckets and a vocabulary of integers, all adapted on data, inside the model."""
    import keras
    from keras import layers

    labels = digits()[1]
    sums, codes = sums_and_codes()
    normalised, buckets = layers.Normalization(), layers.Discretization(num_bins=6)
    lookup = layers.IntegerLookup(vocabulary=np.unique(codes[:1000]).tolist())
    normalised.adapt(sums)
    buckets.adapt(sums[:, :1])
    first = keras.Input((4,), name="sums")
    second = keras.Input((1,), dtype="int64", name="code")
    embedded = layers.Flatten()(layers.Embedding(lookup.vocabulary_size(), 4)(lookup(second)))
    bucket = layers.CategoryEncoding(6)(buckets(first[:, :1]))
    joined = layers.Concatenate()([normalised(first), bucket, embedded])
    model = keras.Model(
        [first, second], layers.Dense(10, activation="softmax", name="digit")(joined)
    )
    return fit(model, [sums, codes], labels, "sparse_categorical_crossentropy", epochs=2)


def sums_and_codes() -> tuple[np.ndarray, np.ndarray]:
    """Sums of the quarters of digits, and a code of the two lightest pixels' places."""
    pixels = digits()[0].reshape(-1, 2, 4, 2, 4)
    sums = pixels.sum(axis=(2, 4)).reshape(-1, 4)
    codes = (pixels.reshape(-1, 64).argmax(axis=1) * 7 + 100).astype(np.int64)[:, None]
    return sums, codes
