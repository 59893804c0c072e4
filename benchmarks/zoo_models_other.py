"""Networks of Keras and Flax, and the writers of their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from zoo_spec import SEED, STATISTICS_BATCH, TRACED, Input, Job, Network, Spec, image, perturbed

VOCABULARY = 300


def channels_last(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Both frameworks read images with the channels last."""
    return [array.transpose(0, 2, 3, 1) if array.ndim == 4 else array for array in feed.values()]


def application(name: str, side: int) -> Callable[[], Any]:
    def build() -> Any:
        import tensorflow as tf

        return getattr(tf.keras.applications, name)(weights=None, input_shape=(side, side, 3))

    return build


def keras_transformer() -> Any:
    import tensorflow as tf

    keras = tf.keras
    ids = keras.Input((None,), dtype="int64")
    x = keras.layers.Embedding(VOCABULARY, 64)(ids)
    for _ in range(2):
        seen = keras.layers.MultiHeadAttention(4, 16)(x, x)
        x = keras.layers.LayerNormalization()(x + seen)
        hidden = keras.layers.Dense(128, activation="gelu")(x)
        x = keras.layers.LayerNormalization()(x + keras.layers.Dense(64)(hidden))
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(ids, keras.layers.Dense(5)(x))


def keras_recurrent() -> Any:
    import tensorflow as tf

    keras = tf.keras
    series = keras.Input((None, 12))
    x = keras.layers.Bidirectional(keras.layers.LSTM(32, return_sequences=True))(series)
    x = keras.layers.GRU(48)(x)
    return keras.Model(series, keras.layers.Dense(5)(keras.layers.Dense(32, activation="relu")(x)))


def export_tensorflow(job: Job, path: Path) -> Network:
    """Write one Keras model through tf2onnx."""
    import tensorflow as tf
    import tf2onnx

    tf.keras.utils.set_random_seed(SEED)
    network = job.spec.build()
    rng = np.random.default_rng(SEED)
    norms = [layer for layer in network.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # one batch sets the statistics
    if norms:
        network(*channels_last(job.spec.sample(TRACED | {"batch": STATISTICS_BATCH})), training=True)
    for variable in network.weights:
        if "seed" not in variable.path and np.asarray(variable).dtype.kind == "f":
            variable.assign(perturbed(variable.path, np.asarray(variable), rng))
    # The softmax of an untrained network hides differences; the logits show them.
    network.layers[-1].activation = tf.keras.activations.linear
    signature = []
    for name, value in job.spec.inputs.items():
        shape = [None if isinstance(size, str) else size for size in value.shape]
        shape = [shape[0], *shape[2:], shape[1]] if len(shape) == 4 else shape
        kind = tf.int64 if value.bound else tf.float32
        signature.append(tf.TensorSpec(shape, kind, name=name))
    tf2onnx.convert.from_keras(network, signature, opset=17, output_path=str(path))
    return lambda values: [np.asarray(network(*channels_last(values)))]


def flax_cnn() -> Any:
    import jax
    from flax import nnx

    class Block(nnx.Module):  # type: ignore[misc]
        def __init__(self, i: int, o: int, rngs: Any) -> None:
            self.first = nnx.Conv(i, o, (3, 3), strides=2, rngs=rngs)
            self.second = nnx.Conv(o, o, (3, 3), feature_group_count=o, rngs=rngs)
            self.third = nnx.Conv(o, o, (1, 1), rngs=rngs)
            self.norm = nnx.BatchNorm(o, use_running_average=True, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = jax.nn.relu(self.first(x))
            return x + self.third(jax.nn.relu(self.norm(self.second(x))))

    class Network(nnx.Module):  # type: ignore[misc]
        def __init__(self, rngs: Any) -> None:
            self.block1 = Block(3, 32, rngs)
            self.block2 = Block(32, 64, rngs)
            self.hidden = nnx.Linear(64, 96, rngs=rngs)
            self.head = nnx.Linear(96, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = self.block2(self.block1(x)).mean((1, 2))
            return self.head(jax.nn.gelu(self.hidden(x)))

    return Network(nnx.Rngs(SEED))


def flax_transformer() -> Any:
    import jax
    from flax import nnx

    class Layer(nnx.Module):  # type: ignore[misc]
        def __init__(self, rngs: Any) -> None:
            self.norm1, self.norm2 = nnx.LayerNorm(64, rngs=rngs), nnx.LayerNorm(64, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(4, 64, decode=False, rngs=rngs)
            self.up, self.down = nnx.Linear(64, 160, rngs=rngs), nnx.Linear(160, 64, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = x + self.attention(self.norm1(x))
            return x + self.down(jax.nn.gelu(self.up(self.norm2(x))))

    class Network(nnx.Module):  # type: ignore[misc]
        def __init__(self, rngs: Any) -> None:
            self.reader = nnx.Linear(12, 64, rngs=rngs)
            self.layer1, self.layer2 = Layer(rngs), Layer(rngs)
            self.norm, self.head = nnx.LayerNorm(64, rngs=rngs), nnx.Linear(64, 5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.head(self.norm(self.layer2(self.layer1(self.reader(x)))).mean(1))

    return Network(nnx.Rngs(SEED))


def flax_mixer() -> Any:
    import jax
    from flax import nnx

    class Network(nnx.Module):  # type: ignore[misc]
        def __init__(self, rngs: Any) -> None:
            self.patches = nnx.Conv(3, 64, (4, 4), strides=4, rngs=rngs)
            self.norm1, self.norm2 = nnx.LayerNorm(64, rngs=rngs), nnx.RMSNorm(64, rngs=rngs)
            self.token1, self.token2 = nnx.Linear(64, 48, rngs=rngs), nnx.Linear(48, 64, rngs=rngs)
            self.channel1, self.channel2 = nnx.Linear(64, 160, rngs=rngs), nnx.Linear(160, 64, rngs=rngs)
            self.head = nnx.Linear(64, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = self.patches(x)
            x = x.reshape(x.shape[0], 64, 64)
            y = self.token2(jax.nn.gelu(self.token1(self.norm1(x).swapaxes(1, 2))))
            x = x + y.swapaxes(1, 2)
            x = x + self.channel2(jax.nn.silu(self.channel1(self.norm2(x))))
            return self.head(x.mean(1))

    return Network(nnx.Rngs(SEED))


def export_jax(job: Job, path: Path) -> Network:
    """Write one Flax model through jax2onnx."""
    import jax
    import jax2onnx
    import onnx
    from flax import nnx

    network = job.spec.build()
    rng = np.random.default_rng(SEED)
    state = nnx.state(network, (nnx.Param, nnx.BatchStat))

    def moved(where: Any, value: Any) -> Any:
        name = "running_var" if "var" in jax.tree_util.keystr(where) else ""
        return jax.numpy.asarray(perturbed(name, np.asarray(value), rng))

    nnx.update(network, jax.tree_util.tree_map_with_path(moved, state))
    shapes = []
    for value in job.spec.inputs.values():
        shape: list[int | str] = ["B" if size == "batch" else size for size in value.shape]
        shapes.append([shape[0], *shape[2:], shape[1]] if len(shape) == 4 else shape)
    onnx.save(jax2onnx.to_onnx(network, shapes), path)
    return lambda values: [np.asarray(network(*channels_last(values)))]


TEXT = {"ids": Input(("batch", "sequence"), VOCABULARY)}
SPECS = [
    Spec("mobilenetv2_keras", application("MobileNetV2", 224), image(), ("tf",)),
    Spec("keras_resnet50", application("ResNet50", 64), image(64), ("tf",)),
    Spec("keras_efficientnet_b0", application("EfficientNetB0", 64), image(64), ("tf",)),
    Spec("keras_densenet121", application("DenseNet121", 64), image(64), ("tf",)),
    Spec("keras_convnext_tiny", application("ConvNeXtTiny", 64), image(64), ("tf",)),
    Spec("keras_nasnet_mobile", application("NASNetMobile", 64), image(64), ("tf",)),
    Spec("keras_transformer", keras_transformer, TEXT, ("tf",)),
    Spec("keras_recurrent", keras_recurrent, {"series": Input(("batch", "sequence", 12))}, ("tf",)),
    Spec("flax_cnn", flax_cnn, image(32), ("jax",)),
    Spec("flax_transformer", flax_transformer, {"series": Input(("batch", 16, 12))}, ("jax",)),
    Spec("flax_mixer", flax_mixer, image(32), ("jax",)),
]
