"""Factories that the TensorFlow converter's tests name; imported only where TensorFlow is."""

from __future__ import annotations

import keras
import same_network
from keras import layers


def residual() -> keras.Model:
    """Two inputs, a residual add, batch normalisation with moved statistics."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3), name="images")
    extra = keras.Input((5,), name="extra")
    stem = layers.BatchNormalization(moving_variance_initializer=keras.initializers.RandomUniform(1, 2))(
        layers.Conv2D(4, 3, padding="same")(images)
    )
    branch = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(stem))
    pooled = layers.GlobalAveragePooling2D()(layers.Add()([stem, branch]))
    joined = layers.Concatenate()([pooled, extra])
    return keras.Model([images, extra], layers.Dense(3, name="scores")(layers.Dropout(0.5)(joined)))


def scalar() -> keras.Model:
    """A number for the whole batch, and zeros."""
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    h = layers.Dense(3)(x)
    silent = layers.Dense(2, kernel_initializer="zeros")(h)
    return keras.Model(x, [keras.ops.mean(h), silent])


def unbuilt() -> keras.Model:
    return keras.Sequential([layers.Dense(3)])


def same_dense() -> keras.Model:
    x = keras.Input((6,))
    h = x
    for i, (weight, bias) in enumerate(same_network.dense_layers()):
        layer = layers.Dense(len(bias), activation="relu" if i < 2 else None)
        h = layer(h)
        layer.set_weights([weight, bias])
    return keras.Model(x, h)


def same_image() -> keras.Model:
    x = keras.Input((8, 8, 3))
    (a, b, c, d), head = same_network.image_layers()

    def layer(h: keras.KerasTensor, numbers: same_network.Convolution) -> keras.KerasTensor:
        conv = layers.Conv2D(len(numbers.kernel), 3, padding="same", use_bias=False)
        norm = layers.BatchNormalization(epsilon=same_network.EPSILON)
        h = norm(conv(h))
        conv.set_weights([numbers.kernel.transpose(2, 3, 1, 0)])
        norm.set_weights([numbers.gamma, numbers.beta, numbers.mean, numbers.variance])
        return h

    stem = layers.ReLU()(layer(x, a))
    h = layers.Add()([stem, layer(layers.ReLU()(layer(stem, b)), c)])
    h = layers.MaxPooling2D()(layers.ReLU()(h))
    last = layers.Dense(4)
    y = last(layers.GlobalAveragePooling2D()(layers.ReLU()(layer(h, d))))
    last.set_weights(head)
    return keras.Model(x, y)
