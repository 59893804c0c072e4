"""Factories that the TensorFlow converter's tests name; imported only where TensorFlow is."""

from __future__ import annotations

import keras
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


def unbuilt() -> keras.Model:
    return keras.Sequential([layers.Dense(3)])
