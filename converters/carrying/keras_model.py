"""A plan carried to a live Keras model: a smaller model that computes what the cut file does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import keras
import numpy as np
from graphprune.converters.carrying.keras_arrays import arrays_of, layers_of, named, variables_of
from graphprune.converters.carrying.keras_layers import Sizes, mended
from graphprune.converters.carrying.keras_noise import NOT_REPEATED, proven_again
from graphprune.converters.carrying.keras_proof import Proof
from graphprune.converters.carrying.keras_reshape import reshaped
from graphprune.converters.carrying.matching import match
from graphprune.converters.carrying.new_weights import require_new_weights
from graphprune.converters.carrying.noise import lengths
from graphprune.converters.carrying.source_cut import Array, SourceCut
from graphprune.converters.carrying.torch_report import Mended, ModuleReport
from graphprune.converters.quiet import quiet

from graphprune import api
from graphprune.errors import CarryError, ModelError
from graphprune.model import Source, load
from graphprune.plan import Plan


def carry_model(
    plan: Plan, original: Any, *, model: Source, weights: Source | None = None, seed: int = 0
) -> tuple[Any, ModuleReport]:
    """The Keras model with what the plan removes removed.

    Args:
        plan: made for ``model``.
        original: the Keras model that ``model`` was converted from, with the same weights; never changed.
        model: the ONNX model before pruning.
        weights: the pruned ONNX model, where its weights were updated after the cut.
        seed: of the random inputs of the proof.

    Returns:
        a new model of the smaller shapes, and what was done.

    Raises:
        PlanError: the plan is not for this model.
        CarryError: something that the plan cuts was not found in the Keras model.
        ModelError: the Keras model is not what the ONNX model was made from, or can't have the new sizes.
        ValidationError: the result is not what the pruned model computes.
    """
    if not isinstance(original, keras.Model) or not hasattr(original, "layers"):
        what = f"a plan is carried to a keras.Model, not to a {type(original).__name__}"
        raise ModelError(what)
    source = load(model)
    pruned = api.apply(source, plan) if weights is None else load(weights)
    proof = Proof(source, plan, original, seed)
    arrays = arrays_of(original)
    found = match(source, plan, arrays, None if weights is None else pruned)
    unmatched = [each for each in found.unmatched if not each.needs_run]
    if unmatched:
        require_new_weights(found, source, plan, arrays, None if weights is None else pruned)
        first, *others = unmatched
        what = f"'{first.constant}' of the ONNX model was not found in the Keras model"
        more = f" ({len(others)} more were not found)" if others else ""
        hint = "the model with the weights that were converted, or leave the group out: --exclude"
        missing = [(each.constant, each.use, each.reason) for each in unmatched]
        raise CarryError(what, missing, where=first.use, because=first.reason + more, hint=hint)
    if found.cut.gone:
        what = f"nothing stays of '{min(found.cut.gone)}'"
        because = "the layers of a Keras model are wired to each other"
        hint = "a plan without whole blocks: kinds=['channels', 'heads', 'head_dim', 'experts']"
        raise ModelError(what, because=because, hint=hint)
    cut = _with_biases(original, found.cut)
    new = _new_arrays(arrays, cut)
    rebuild = _Rebuild(original, plan, cut, new)
    carried = rebuild.model()
    _assign(carried, new)
    error = proof.error(carried, pruned)
    plain = pruned if weights is None else api.apply(source, plan)

    def smaller(noisy: Mapping[str, Array]) -> dict[str, Array]:
        plainly = replace(found.cut, values=lengths(found.links, noisy), added={})
        made = _new_arrays(noisy, _with_biases(original, plainly))
        return {name: array * rebuild.factors.get(name, 1) for name, array in made.items()}

    models = (original, carried)
    is_repeated = proven_again(proof, (source, plain), plan, found.links, found.cut.kept, models, smaller)
    report = ModuleReport(
        parameters=(original.count_params(), carried.count_params()),
        how=dict(found.cut.how),
        mended=tuple(rebuild.changes),
        rescaled=tuple(rebuild.rescaled),
        filled=(),
        error=error,
        tolerance=proof.tolerance,
        change=proof.change(pruned),
        notes=() if is_repeated else (NOT_REPEATED,),
    )
    return carried, report


def _new_arrays(arrays: Mapping[str, Array], cut: SourceCut) -> dict[str, Array]:
    new = {}
    for name, array in arrays.items():
        for axis, keep in cut.kept.get(name, {}).items():
            array = array.take(keep, axis)
        new[name] = np.asarray(cut.values.get(name, array))
    return new | {name: np.asarray(array) for name, array in cut.added.items()}


def _with_biases(original: Any, cut: SourceCut) -> SourceCut:
    """Columns of a recurrent layer's bias go with those of its kernels, whatever the file makes of both."""
    kept = dict(cut.kept)
    for name in variables_of(original):
        module, _, leaf = name.rpartition("/")
        columns = kept.get(f"{module}/recurrent_kernel", {}).get(1)
        if leaf == "bias" and columns is not None and name not in cut.values:
            kept[name] = {len(variables_of(original)[name].shape) - 1: columns}
    return replace(cut, kept=kept)


def _assign(model: Any, new: Mapping[str, Array]) -> None:
    variables = variables_of(model)
    for name, variable in variables.items():
        if name not in new or tuple(variable.shape) != new[name].shape:
            held = new[name].shape if name in new else None
            what = f"the smaller model has no place for '{name}'"
            raise ModelError(what, because=f"it wants {tuple(variable.shape)}, the plan leaves {held}")
        variable.assign(new[name])


def load_model(path: Path) -> Any:
    """The model in a ``.keras`` or ``.h5`` file; code that is in the file does not run.

    Raises:
        ModelError: it can't be loaded.
    """
    if not path.is_file():
        what = f"there is no file '{path}'"
        raise ModelError(what)
    with quiet():
        try:
            return keras.models.load_model(path, compile=False)
        except Exception as error:  # zip, HDF5 and Keras errors
            what = f"Keras cannot load '{path}'"
            because = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ModelError(what, because=because) from error


class _Rebuild:
    """The same layers with other sizes, called on each other as before."""

    def __init__(self, original: Any, plan: Plan, cut: SourceCut, new: dict[str, Array]) -> None:
        self._original, self._cut, self._new = original, cut, new
        self._names = {id(layer): name for name, layer in layers_of(original)}
        self._left: dict[int, set[int]] = {}
        for group in plan.groups:
            self._left.setdefault(group.size, set()).add(len(group.keep))
        self.changes: list[Mended] = []
        self.rescaled: list[str] = []
        self.factors: dict[str, float] = {}

    def model(self) -> Any:
        with quiet():
            try:
                return keras.models.clone_model(
                    self._original, self._inputs(), clone_function=self._clone, recursive=True
                )
            except ModelError:
                raise
            except Exception as error:  # whatever a layer makes of its new input
                what = "the Keras model can't be built with the new sizes"
                because = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                hint = "a functional or sequential model of Keras's own layers"
                raise ModelError(what, because=because, hint=hint) from error

    def _inputs(self) -> Any:
        """Inputs of the same names; Keras would make up new ones."""
        if isinstance(self._original, keras.Sequential):
            return None
        return keras.tree.map_structure(
            lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x._keras_history.operation.name),
            self._original.input,
        )

    def _clone(self, layer: Any) -> Any:
        name = self._names.get(id(layer), layer.name)
        config = layer.get_config()
        variables = {named(name, layer, variable): variable for variable in layer.weights}
        shapes = {id(variable): self._new[key].shape for key, variable in variables.items()}
        changed = mended(layer, config, Sizes(shapes, self._groups(variables)))
        if f"{name}/bias" in self._cut.added and "use_bias" in changed:
            changed["use_bias"] = True
        self._note(name, config, changed)
        self._rescale(layer, name, config, changed)
        made = type(layer).from_config(changed)
        if isinstance(layer, keras.layers.Reshape):
            self._follow(layer, made, name)
        return made

    def _follow(self, old: Any, made: Any, name: str) -> None:
        """The target is settled as soon as the new Reshape is told what it reads."""
        build = made.build

        def settle(input_shape: tuple[int | None, ...]) -> None:
            target = reshaped(old.target_shape, tuple(old.input.shape)[1:], input_shape[1:], self._left, name)
            before, after = list(old.target_shape), list(target)
            self._note(name, {"target_shape": before}, {"target_shape": after})
            made.target_shape = target
            made.build = build
            build(input_shape)

        made.build, made.built = settle, False

    def _groups(self, names: Mapping[str, Any]) -> dict[str, dict[int, int]]:
        found: dict[str, dict[int, int]] = {}
        for name in names:
            for changes in self._cut.sizes.get(name, {}).values():
                for change in changes:
                    found.setdefault(change.kind, {})[change.before] = change.after
        return found

    def _note(self, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        for key, value in after.items():
            old = before.get(key)
            if isinstance(value, list) and isinstance(old, (list, tuple)) and len(old) == len(value):
                pairs = [(f"{name}.{key}[{i}]", *pair) for i, pair in enumerate(zip(old, value, strict=True))]
            else:
                pairs = [(f"{name}.{key}", old, value)]
            for where, was, now in pairs:
                if isinstance(was, int) and isinstance(now, int) and was != now:
                    self.changes.append(Mended(where, was, now))

    def _rescale(self, layer: Any, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Attention divides scores by the root of the size of a key; the trained network's was another."""
        key = {"MultiHeadAttention": "key_dim", "GroupQueryAttention": "head_dim"}.get(type(layer).__name__)
        if key is None or before[key] == after[key]:
            return
        factor = sqrt(after[key] / before[key])
        for leaf in ("kernel", "bias"):
            place = f"{name}/query/{leaf}"
            if place in self._new:
                self.factors[place] = factor
                self._new[place] = (self._new[place] * factor).astype(self._new[place].dtype)
        self.rescaled.append(name)
