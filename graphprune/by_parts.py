"""The oracle for a model that is too large to be run whole: parts of it are run, each alone.

A part begins at a narrow place, with random numbers in place of what the model would compute up to there.
Original (with removed slices at zero) and cut must then agree at the part's end, and at every product inside:
each of these is compared on its own scale, so nothing hides behind a residual sum, however small it is.

Layers that are built alike and cut at the same places are cut by the same code: of parts with the same
operators and attributes, and weights of the same shapes of which the same axes shrink, the first is run and
one more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphprune.analysis import Analysis, touched
from graphprune.as_read import changed_by_reading
from graphprune.axes_kept import Keeps, touches
from graphprune.calibration.pieces import large_constants, part_of
from graphprune.compare import Difference, compare_outputs, run
from graphprune.errors import GraphPruneError, ModelError, ValidationError
from graphprune.fed import FedSession
from graphprune.foreign import foreign_nodes
from graphprune.kept_positions import KeptPositions
from graphprune.model import Model
from graphprune.oracle import Removed, Verdict, masked_reference, require_equal, rounding, verify
from graphprune.parts import Part, between, is_big, parts_of
from graphprune.paths import paths
from graphprune.runtime import session_options
from graphprune.sample_inputs import sample_inputs
from graphprune.shapes.inference import Skeleton
from graphprune.shapes.sizes import Interface
from graphprune.shapes.trace import trace
from graphprune.storage.reading import read_file
from graphprune.unrounded import rounds

#: Bytes of constants in a part.
PART_BYTES = 1 << 27
#: Parts of one kind that are run.
_EACH = 2
#: Sizes of batches and lengths, in turn.
_SMALL = (2, 3, 5, 7, 11)
#: Attributes that are no part of how a node is built, or too large to compare.
_UNNAMED = (
    ir.AttributeType.TENSOR,
    ir.AttributeType.TENSORS,
    ir.AttributeType.GRAPH,
    ir.AttributeType.GRAPHS,
)
Start = Mapping[str, ir.DataType]
Shapes = Mapping[str, tuple[int, ...]]
Arrays = dict[str, npt.NDArray[np.generic]]


def verify_somehow(analysis: Analysis, removed: Removed, pruned: Model, *, seed: int = 0) -> Verdict:
    """The oracle: of the whole model, or of parts if it is big and they can be had.

    Raises:
        ValidationError: the outputs differ, or one of the models does not run.
    """
    if is_big(analysis.model):
        found = verify_parts(analysis, removed, pruned, seed=seed)
        if found is not None:
            return found
    return verify(analysis, removed, pruned, seed=seed)


def verify_parts(analysis: Analysis, removed: Removed, pruned: Model, *, seed: int = 0) -> Verdict | None:
    """Runs the oracle on some parts of the model.

    Returns:
        None where no part can be compared: the model has no narrow places, rounds activations, or takes
        different ways.

    Raises:
        ValidationError: values differ, or one of the models does not run.
    """
    model = analysis.model
    if rounds(model) or foreign_nodes(model.ir.graph) or paths(model):
        return None
    keeps = Keeps(analysis, removed)
    reference, kept = masked_reference(analysis, removed), KeptPositions(keeps)
    # Positions that are held along a runtime size are those of the analysis.
    is_held = reference.as_analysed or any(map(kept.is_runtime_size, analysis.axes))
    shapes, dims = (analysis.trace.shapes, analysis.trace.dims) if is_held else _small_sizes(analysis)
    types = types_of(model, shapes, dims)
    floats = {n for n, t in types.items() if t.is_floating_point() and n in shapes}
    parts = parts_of(model, PART_BYTES, shapes, lambda value: value.name in floats)
    touched = [part for part in parts if _is_cut(part, keeps)]
    pair = _Pair(analysis, reference.model, pruned, kept, types)
    numbers = _Feeds(model, shapes, dims, types, seed)
    exact, statistics = not reference.statistics, reference.statistics
    verdict = Verdict(0.0, 0.0, [], exact, statistics, parts=(0, len(touched)))
    done = 0
    for part in _some_of_each_kind(touched, keeps, seed):
        feeds = numbers.of(part)
        differences = pair.compare(part, feeds)
        if differences is None:
            continue
        done += 1
        verdict = replace(
            verdict,
            max_error=max(verdict.max_error, *(d.max_error for d in differences)),
            scale=max(verdict.scale, *(d.scale for d in differences)),
            runs=verdict.runs or [{name: list(feeds[name].shape) for name in numbers.given}],
            parts=(done, len(touched)),
        )
    return verdict if done else None


def _small_sizes(analysis: Analysis) -> tuple[Shapes, Mapping[str, int]]:
    """Shapes and sizes for short inputs, which cost less than those of the analysis."""
    known = analysis.trace
    dims = Interface(analysis.model.ir).dims
    small = {d.name: size for d, size in zip(dims, _SMALL, strict=False) if d.role in ("batch", "length")}
    if len(dims) > len(_SMALL):
        return known.shapes, known.dims
    found = trace(analysis.model, small, only_nominal=True)
    return (found.nominal, found.nominal_dims) if found.traced else (known.shapes, known.dims)


def types_of(model: Model, shapes: Shapes, dims: Mapping[str, int]) -> Mapping[str, ir.DataType]:
    """Element types of values by name, as far as static inference tells."""
    given = {v.name or "": shapes[v.name or ""] for v in model.ir.graph.inputs if v.name in shapes}
    return Skeleton(model.ir).infer(given, sizes=dims).types


def _is_cut(part: Part, keeps: Keeps) -> bool:
    uses = keeps.analysis.uses
    places = ((node, i) for node in part.nodes for i in range(len(node.inputs)))
    return any(touches(keeps.of_use(uses[place])) for place in places if place in uses)


def _some_of_each_kind(parts: Sequence[Part], keeps: Keeps, seed: int) -> list[Part]:
    """The first part of each kind and some others, in order."""
    kinds: dict[object, list[Part]] = {}
    for part in parts:
        kinds.setdefault((_kind(part), _shrinking(part, keeps)), []).append(part)
    rng = np.random.default_rng(seed)
    chosen: set[Part] = set()
    for alike in kinds.values():
        others = rng.permutation(len(alike) - 1)[: _EACH - 1] + 1
        chosen |= {alike[0], *(alike[i] for i in others)}
    return [part for part in parts if part in chosen]


def _kind(part: Part) -> object:
    """The same for parts that are built alike."""
    constants = [
        (node.op_type, i, tuple(value.const_value.shape.numpy()))
        for node in part.nodes
        for i, value in enumerate(node.inputs)
        if value is not None and value.const_value is not None
    ]
    return tuple((node.op_type, _attributes(node)) for node in part.nodes), tuple(constants)


def _attributes(node: ir.Node) -> tuple[str, ...]:
    """All but tensors and bodies, as text."""
    plain = (a for a in node.attributes.values() if a.type not in _UNNAMED)
    return tuple(sorted(f"{a.name}={a.value}" for a in plain))


def _shrinking(part: Part, keeps: Keeps) -> tuple[tuple[bool, ...], ...]:
    """Which axes of what the part's nodes read shrink."""
    places = [(node, i) for node in part.nodes for i, value in enumerate(node.inputs) if value is not None]
    return tuple(tuple(mask is not None for mask in keeps.of_input(*place)) for place in places)


def _as_file(model: Model) -> Model | None:
    """The model as it stands in its file, before it was brought into another form."""
    if model.path is None:
        return None
    try:
        return Model(read_file(model.path), path=model.path, data_files=model.data_files)
    except ModelError:
        return None


class _Feeds:
    """Random numbers for what parts read."""

    def __init__(
        self,
        model: Model,
        shapes: Shapes,
        dims: Mapping[str, int],
        types: Mapping[str, ir.DataType],
        seed: int,
    ) -> None:
        self._shapes, self._types = shapes, types
        self._rng = np.random.default_rng(seed)
        self.given = sample_inputs(model, dims, self._rng)

    def of(self, part: Part) -> Arrays:
        """For the model's inputs, and where the part begins."""
        numbers = {}
        for name in _names(part.start):
            numbers[name] = self._rng.standard_normal(self._shapes[name]).astype(self._types[name].numpy())
        return self.given | numbers


class _Pair:
    """Original and cut, to be compared part by part."""

    def __init__(
        self,
        analysis: Analysis,
        reference: Model,
        pruned: Model,
        kept: KeptPositions,
        types: Mapping[str, ir.DataType],
    ) -> None:
        self._analysis, self._kept, self._types = analysis, kept, types
        self._reference, self._pruned = reference, pruned
        self._accepted, self._file = rounding(analysis.model), _as_file(analysis.model)
        self._read: set[object] = set()

    def compare(self, part: Part, feeds: Arrays) -> list[Difference] | None:
        """Differences within a part and at its end; None if the cut has no such values any more.

        Raises:
            ValidationError: they are larger than rounding allows, or the part does not run.
        """
        start, end = {name: self._types[name] for name in _names(part.start)}, _names(part.end)
        watched = [name for name in self._products(part) if name not in end]
        values = {value.name for node in self._pruned.ir.graph for value in node.outputs}
        if not values >= {*start, *end}:
            return None
        wanted = (*(name for name in watched if name in values), *end)  # in the order of the nodes
        if _kind(part) not in self._read:
            self._read.add(_kind(part))
            self._require_as_read(start, end, feeds)
        whole = self._kept.whole(feeds)
        expected = self._kept.kept(_run(self._reference, start, wanted, whole))
        actual = _run(self._pruned, start, wanted, self._kept.kept(whole))
        found = compare_outputs(expected, actual)
        for difference in found:
            if difference.compared == 0:
                message = f"'{difference.output}' is not finite on random numbers"
                because = "the pruned model can't be verified on it; nothing was written"
                hint = "--no-verify, if the original is known to be right"
                raise ValidationError(message, because=because, hint=hint)
            require_equal(difference, self._accepted, "the masked original")
        return found

    def _products(self, part: Part) -> list[str]:
        """What multiplications inside of the part make."""
        found = [v for n in part.nodes if n in self._analysis.contractions for v in n.outputs]
        names = [v.name or "" for v in found if v.name in self._analysis.axes]
        return [name for name in names if name in self._types and self._types[name].is_floating_point()]

    def _require_as_read(self, start: Start, end: tuple[str, ...], feeds: Arrays) -> None:
        """The part is what stands in the file; nothing is asked where it can't be found or run there."""
        if self._file is None:
            return
        try:
            expected = _run(self._file, start, end, feeds)
        except ValidationError:
            return
        finite = {k: v for k, v in expected.items() if np.isfinite(v).all()}
        for difference in compare_outputs(finite, _run(self._analysis.model, start, end, feeds)):
            if not difference.within(self._accepted):
                raise changed_by_reading(difference, self._file.path)


def _run(model: Model, start: Start, end: tuple[str, ...], feeds: Arrays) -> Arrays:
    nodes = between(model, start, end)
    if nodes is None:
        message = "a part of the model is not there"
        raise ValidationError(message, where=", ".join(end))
    read = {v for node in nodes for v in touched(node)}
    inputs = {v.name or "": int(v.dtype) for v in model.ir.graph.inputs if v in read and v.dtype is not None}
    inputs |= {name: int(dtype) for name, dtype in start.items()}
    fed = large_constants(read, inputs)
    try:
        session = FedSession(part_of(model, nodes, inputs, end, fed), fed, session_options())
    except GraphPruneError:
        raise
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        message = "onnxruntime refuses a part of the model"
        because = " ".join(str(error).split())[:400]
        raise ValidationError(message, where=f"up to {', '.join(end)}", because=because) from error
    return run(session, feeds)


def _names(values: Sequence[ir.Value]) -> tuple[str, ...]:
    return tuple(value.name or "" for value in values)
