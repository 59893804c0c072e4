"""A plan carried home: to a file of weights, or to a live network of the framework that it came from."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphprune.converters import source as sources
from graphprune.converters.carrying.carry_report import smaller_heads
from graphprune.converters.carrying.weight_files import INDEX, TORCH, is_weights

from graphprune.errors import ModelError, PlanError, UsageError
from graphprune.model import Model, Source, load
from graphprune.plan import Plan
from graphprune.storage.writing import require_apart

KERAS = (".keras", ".h5", ".hdf5")


def carry(
    plan: Plan | str | Path,
    source: Any,
    out: str | Path | None = None,
    *,
    model: Source | None = None,
    weights: Source | None = None,
    inputs: Any = None,
    trust: bool = False,
) -> Any:
    """Applies a plan to the parameters of the framework that the model came from.

    Args:
        plan: the decision, or its file.
        source: a live ``torch.nn.Module`` or Keras model; ``module:factory`` that makes one; a ``.keras``
            file; or a file of weights: ``.safetensors`` (or the index of several) and what torch saved.
        out: the file to write: weights for a torch module (``.safetensors`` or ``.pt``), ``.keras`` for a
            Keras model. A live source needs none.
        model: the ONNX model that the plan was made for; None: the file that the plan names.
        weights: the pruned ONNX model, if its weights were updated (compensated, recovered): these are
            carried too.
        inputs: example inputs of a torch module, as for :func:`graphprune.convert`.
        trust: load a pickled torch module, or a checkpoint with other objects in it, which can run
            anything.

    Returns:
        For a live network its smaller copy, proven equal to the pruned model; for files a report.

    Raises:
        CarryError: something that the plan cuts was not found in the source; nothing is written.
        PlanError: the plan is for another model.
        ValidationError: the carried network computes something else than the pruned model.
        ModelError: a file or the source can't be used.
        UsageError: ``out`` is one of the files that are read, or its name asks for another kind.
    """
    decision = plan if isinstance(plan, Plan) else Plan.load(plan)
    original, note = model_of(decision, model)
    pruned = None if weights is None else load(weights)
    if not isinstance(source, (str, Path)):
        if out is not None:
            what = "a live network is returned, not written"
            raise UsageError(what, hint="without out=; save it with its framework")
        if note is not None:
            warnings.warn(note, UserWarning, stacklevel=2)  # a network has no report that could say it
        return carry_live(decision, source, original, pruned, inputs)[0]
    if out is not None:
        given = [*sources.files_of(str(source)), *(Path(p) for p in (plan,) if isinstance(p, (str, Path)))]
        require_apart([Path(out)], [*given, *_files(original), *_files(pruned)])
    return carry_path(decision, source, out, original, pruned, inputs, trust=trust, note=note)


def _files(model: Model | None) -> list[Path]:
    """What a model is read from."""
    if model is None:
        return []
    return [*model.data_files, *(() if model.path is None else (model.path,))]


def model_of(plan: Plan, model: Source | None) -> tuple[Model, str | None]:
    """The model that a plan was made for, and what to say if the file is another one that the plan fits.

    Raises:
        PlanError: it is not known, has changed, or the plan does not fit it.
        ModelError: it can't be read.
    """
    if model is None:
        if plan.model_file is None:
            what = "the plan does not say which file it was made for"
            raise PlanError(what, hint="--model MODEL.onnx (model= in Python)")
        if not Path(plan.model_file).is_file():
            what = f"the plan was made for '{plan.model_file}', which is not there"
            raise PlanError(what, hint="--model MODEL.onnx (model= in Python)")
    found = load(plan.model_file if model is None else model)
    if found.sha256 == plan.model_sha256:
        return found, None
    because = f"its sha256 is {found.sha256[:12]}…, the plan's {plan.model_sha256[:12]}…"
    misfit = _misfit(plan, found)
    if model is None or misfit is not None:
        what = "the plan was made for another model"
        because = because if misfit is None else f"{because}; {misfit}"
        raise PlanError(what, where=str(found.path or "model"), because=because, hint="--model MODEL.onnx")
    return found, f"note: the plan was made for another file ({because}); its parameters fit this one"


def _misfit(plan: Plan, model: Model) -> str | None:
    """The first constant of a plan that a model does not have in that size."""
    constants = model.ir.graph.initializers
    for entry in plan.parameters:
        value = constants.get(entry.name)
        if value is None or value.const_value is None:
            return f"it has no constant '{entry.name}'"
        shape = tuple(int(n) for n in value.const_value.shape.numpy())
        if entry.axis >= len(shape) or shape[entry.axis] != entry.size:
            return (
                f"'{entry.name}' is {list(shape)} there, and axis {entry.axis} has {entry.size} in the plan"
            )
    return None


def carry_live(
    plan: Plan, network: Any, model: Model, weights: Source | None, inputs: Any = None
) -> tuple[Any, Any]:
    """The smaller copy of a live network, and a report of its framework's kind.

    Raises:
        ModelError: it is of no framework that a plan can be carried to.
    """
    framework = sources.framework_of(network)
    if framework == "torch":
        from graphprune.converters.carrying.torch_module import carry_module

        return carry_module(plan, network, model=model, weights=weights, inputs=inputs)
    if framework == "tensorflow":
        from graphprune.converters.carrying.keras_model import carry_model

        return carry_model(plan, network, model=model, weights=weights)
    what = f"cannot carry a plan to a {type(network).__name__}"
    raise ModelError(what, hint="a torch.nn.Module, a Keras model, or a file of weights")


def carry_path(
    plan: Plan,
    source: str | Path,
    out: str | Path | None,
    model: Model,
    weights: Source | None = None,
    inputs: Any = None,
    *,
    trust: bool = False,
    note: str | None = None,
) -> Any:
    """Carries a plan to what a path or ``module:factory`` names, and writes it; the report."""
    name, path = str(source), Path(source)
    if sources.is_factory(name):
        network = sources.call_factory(sources.load_factory(name), name)
        network, example = _with_inputs(network, inputs)
        return _carry_and_save(plan, network, out, model, weights, example, note)
    if path.suffix in KERAS:
        from graphprune.converters import tensorflow

        tensorflow.require("tensorflow", "keras")
        from graphprune.converters.carrying.keras_model import load_model

        return _carry_and_save(plan, load_model(path), out, model, weights, None, note)
    if not is_weights(path):
        what = f"cannot tell what '{name}' is"
        hint = f"module:factory, a .keras file, .safetensors, *{INDEX}, or {', '.join(TORCH)}"
        raise ModelError(what, because=None if path.exists() else "there is no such file", hint=hint)
    from graphprune.converters.carrying.carry_file import carry_file

    pruned = None if weights is None else load(weights)
    if trust and path.suffix in TORCH:
        network = _pickled(path)
        if network is not None:
            return _carry_and_save(plan, network, out, model, weights, inputs, note)
    target = None if out is None else Path(out)
    report = carry_file(plan, path, target, model=model, weights=pruned, trust=trust)
    return _noted(report, note)


def _with_inputs(made: Any, inputs: Any) -> tuple[Any, Any]:
    """A factory may return a pair of the network and its example inputs."""
    if isinstance(made, tuple) and len(made) == 2:
        return made[0], made[1] if inputs is None else inputs
    return made, inputs


def _noted(report: Any, *notes: str | None) -> Any:
    """A report of any kind with further notes."""
    return replace(report, notes=(*report.notes, *(note for note in notes if note)))


def _heads(plan: Plan, report: Any) -> str | None:
    """What code has to follow that loads a module's weights: not all that a live module knows is in them."""
    note = smaller_heads(plan)
    if note is None or not report.rescaled:
        return note
    return f"{note}; but the new scale where queries were rescaled for it: {', '.join(report.rescaled)}"


def _pickled(path: Path) -> Any:
    from graphprune.converters import torch_pickle

    try:
        return torch_pickle.load(path, trust=True)
    except ModelError:  # weights alone: a file like any other
        return None


def _carry_and_save(
    plan: Plan,
    network: Any,
    out: str | Path | None,
    model: Model,
    weights: Source | None,
    inputs: Any,
    note: str | None,
) -> Any:
    carried, report = carry_live(plan, network, model, weights, inputs)
    if out is not None:
        save(carried, Path(out))
    is_torch = sources.framework_of(network) == "torch"
    return _noted(report, _heads(plan, report) if is_torch else None, note)


def save(network: Any, out: Path) -> None:
    """Writes a live network's weights; a Keras model whole.

    Raises:
        UsageError: the file's name asks for another kind.
        ModelError: the file can't be written.
    """
    from graphprune.converters.staging import staged

    if sources.framework_of(network) == "torch":
        if out.suffix not in (".safetensors", *TORCH):
            what = f"cannot write the weights of a module to '{out}'"
            raise UsageError(what, hint="OUT.safetensors or OUT.pt")
        with staged(out) as path:
            _save_state(network, path)
        return
    if out.suffix not in KERAS:
        what = f"cannot write a Keras model to '{out}'"
        raise UsageError(what, hint="OUT.keras")
    with staged(out) as path:
        network.save(path)


def _save_state(network: Any, path: Path) -> None:
    import torch
    from graphprune.converters.carrying.safetensors_file import write_safetensors
    from graphprune.converters.carrying.torch_arrays import to_numpy

    state = network.state_dict()
    if path.suffix != ".safetensors":
        torch.save(state, path)
        return
    write_safetensors(path, {name: to_numpy(each) for name, each in state.items()}, {"format": "pt"})
