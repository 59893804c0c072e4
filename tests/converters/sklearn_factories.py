"""Factories that the scikit-learn converter's tests name; imported only where skl2onnx is."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import same_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SAMPLES = np.random.default_rng(0).standard_normal((40, 6))
CLASS = (SAMPLES[:, 0] > 0).astype(int) + (SAMPLES[:, 1] > 0)


def fitted(estimator: Any, targets: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(SAMPLES, targets)


def network(kind: Any, **options: Any) -> Any:
    return kind(hidden_layer_sizes=(16, 12), max_iter=5, random_state=0, **options)


def classifier() -> Any:
    return fitted(network(MLPClassifier), CLASS)


def regressor() -> Any:
    return fitted(network(MLPRegressor), SAMPLES[:, 0])


def pipeline() -> Any:
    words = np.array(["no", "maybe", "yes"])[CLASS]
    return fitted(make_pipeline(StandardScaler(), network(MLPClassifier, activation="tanh")), words)


def unfitted() -> Any:
    return MLPClassifier()


def misfit() -> Any:
    return classifier(), SAMPLES[:, :3]


def same_dense(kind: Any, targets: np.ndarray) -> Any:
    estimator = network(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(np.zeros((4, 6)), targets)
    weights, biases = zip(*same_network.dense_layers(), strict=True)
    estimator.coefs_, estimator.intercepts_ = list(weights), list(biases)
    return estimator


def same_regressor() -> Any:
    return same_dense(MLPRegressor, np.zeros((4, 4)))


def same_classifier() -> Any:
    return same_dense(MLPClassifier, np.arange(4))
