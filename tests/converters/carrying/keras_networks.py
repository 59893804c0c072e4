"""Keras networks with one kind of layer each that says its own sizes; imported only where Keras is."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers


def attention() -> keras.Model:
    """Values of another size than keys, a norm over what is cut, an exact GELU."""
    x = keras.Input((7, 16))
    h = layers.MultiHeadAttention(4, 6, value_dim=5)(x, x)
    h = layers.LayerNormalization()(layers.Add()([x, h]))
    h = layers.Dense(16)(layers.Dense(32, activation="gelu")(h))
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(h)))


def squeeze_and_excite() -> keras.Model:
    """A Reshape whose target names the width, depthwise and separable convolutions, a Flatten."""
    x = keras.Input((8, 8, 3))
    h = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(12, 3, use_bias=False)(x)))
    gate = layers.Reshape((1, 1, 12))(layers.GlobalAveragePooling2D()(h))
    gate = layers.Conv2D(12, 1, activation="sigmoid")(layers.Conv2D(6, 1, activation="relu")(gate))
    h = layers.DepthwiseConv2D(3)(layers.Multiply()([h, gate]))
    h = layers.Flatten()(layers.SeparableConv2D(10, 3, activation="relu")(h))
    return keras.Model(x, layers.Dense(5)(h))


def recurrent() -> keras.Model:
    x = keras.Input((7,), dtype="int32")
    h = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(layers.Embedding(20, 8)(x))
    return keras.Model(x, layers.Dense(3)(layers.GRU(9)(h)))


def nested() -> keras.Model:
    """A model as a layer, whose output is cut."""
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(16, activation="relu"), layers.Dense(8)])
    outer = [layers.ReLU(), layers.Dense(12, activation="relu"), layers.Dense(4)]
    return keras.Sequential([keras.Input((6,)), inner, *outer])


def transposed() -> keras.Model:
    """Groups in a norm, one slope per channel, a transposed convolution."""
    x = keras.Input((8, 8, 4))
    h = layers.PReLU(shared_axes=[1, 2])(layers.GroupNormalization(4)(layers.Conv2D(16, 3)(x)))
    h = layers.UpSampling2D()(layers.ReLU()(layers.Conv2DTranspose(8, 3, strides=2)(h)))
    return keras.Model(x, layers.Conv2D(2, 1)(h))


def mobile() -> keras.Model:
    return keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=10, classifier_activation=None
    )


@keras.saving.register_keras_serializable("tests")
class Own(layers.Layer):
    """A layer of somebody's own, whose configuration nobody else can read."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 12), name="kernel")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return x @ self.kernel


def own() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), Own(), layers.ReLU(), layers.Dense(4)])


def two_dense() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), layers.Dense(12, activation="relu"), layers.Dense(4)])


def moved(model: keras.Model) -> keras.Model:
    """No two weights of these are equal, and no statistic is at its start."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        array = np.asarray(weight)
        if "variance" in weight.name:
            weight.assign(array * rng.uniform(0.5, 1.5, array.shape))
        else:
            weight.assign(array + 0.1 * max(array.std(), 0.3) * rng.standard_normal(array.shape))
    return model
