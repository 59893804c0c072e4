"""The model that everything works on: an onnx_ir graph in canonical form, and its source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir

from graphprune.errors import ModelError
from graphprune.garbage import no_collection
from graphprune.progress import Progress, silent
from graphprune.storage.canonical import canonicalise
from graphprune.storage.constants import loaded
from graphprune.storage.reading import read_file, read_proto
from graphprune.storage.stamps import Stamps
from graphprune.storage.stored_tensors import tensors
from graphprune.storage.streaming import Stream
from graphprune.storage.writing import write


class Model:
    """An ONNX model in canonical form (see `graphprune.storage.canonical`).

    Attributes:
        ir: the graph; edit a `clone`, never a model that was passed in.
        path: the file it was read from, None for an object in memory.
        data_files: external data files that its tensors are read from; what is made from this model
            has to name them as well, since tensors that are computed when they are read don't.
        stamps: what these files looked like when they were opened.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        path: Path | None = None,
        sha256: str | None = None,
        data_files: Iterable[Path] | None = None,
        stamps: Stamps | None = None,
    ) -> None:
        self.ir = model
        self.path = path
        self.data_files = _data_files(model) if data_files is None else frozenset(data_files)
        self.stamps = Stamps.of(self.data_files) if stamps is None else stamps
        self._sha256 = sha256
        self._digest: Future[str] | None = None

    @classmethod
    @no_collection()
    def load(cls, source: str | Path | onnx.ModelProto | gs.Graph | ir.Model | Model) -> Model:
        """Read a model; neither the file nor the object is ever changed.

        Args:
            source: a path, a `ModelProto`, a `gs.Graph`, an onnx_ir model, or a `Model` (returned
                as it is).

        Raises:
            ModelError: the source is not a valid ONNX model.
        """
        if isinstance(source, Model):
            return source
        if isinstance(source, (str, Path)):
            path = Path(source)
            stamps = Stamps.of([path])
            read = read_file(path)
            files = _data_files(read)
            stamps = stamps.with_those_of(files)
            return cls(canonicalise(read), path=path, data_files=files, stamps=stamps)
        if isinstance(source, gs.Graph):
            proto = gs.export_onnx(source)
        elif isinstance(source, ir.Model):
            proto = _embedded(source)
        elif isinstance(source, onnx.ModelProto):
            proto = onnx.ModelProto()
            proto.CopyFrom(source)  # onnx_ir's tensors write through to the proto that they wrap
        else:
            msg = f"cannot load a model from a {type(source).__name__}"
            raise ModelError(msg, hint="give a path, an onnx.ModelProto or a gs.Graph")
        digest = _proto_digest(proto)
        read = read_proto(proto, where=f"the {type(source).__name__}", base_dir=Path())
        return cls(canonicalise(read), sha256=digest)

    @property
    def sha256(self) -> str:
        """SHA-256 of the input file's bytes, or of an object's deterministic serialization."""
        if self._sha256 is None:
            self._sha256 = self.digest().result()
        return self._sha256

    def digest(self) -> Future[str]:
        """`sha256`; a file is hashed beside other work, which takes nothing from the interpreter."""
        if self._digest is None:
            self._digest = Future()
            if self._sha256 is not None:
                self._digest.set_result(self._sha256)
            elif self.path is None:
                self._digest.set_result(_proto_digest(self.to_proto()))
            else:
                with_thread = ThreadPoolExecutor(1)
                self._digest = with_thread.submit(_file_digest, self.path)
                with_thread.shutdown(wait=False)
        return self._digest

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return int(self.ir.opset_imports[""])

    @property
    def weight_bytes(self) -> int:
        """Bytes of all initializers."""
        constants = (v.const_value for v in self.ir.graph.initializers.values())
        return sum(tensor.nbytes for tensor in constants if tensor is not None)

    @property
    def file_bytes(self) -> int:
        """Size of the model as a file, external data included."""
        if self.path is None:
            return Stream(self.ir).size
        return sum(f.stat().st_size for f in {self.path, *self.data_files})

    def clone(self) -> Model:
        """Copy the graph; the tensors are shared, since they are never written to."""
        return Model(
            self.ir.clone(), path=self.path, sha256=self._sha256, data_files=self.data_files,
            stamps=self.stamps,
        )  # fmt: skip

    def to_proto(self) -> onnx.ModelProto:
        """The model as one `ModelProto`, external data included."""
        return _embedded(self.ir)

    def to_graphsurgeon(self) -> gs.Graph:
        """The model as an onnx-graphsurgeon graph, external data included.

        GraphSurgeon keeps neither metadata properties nor doc strings of nodes.
        """
        return gs.import_onnx(self.to_proto())

    def save(
        self,
        path: str | Path,
        *,
        stream: Stream | None = None,
        as_loaded: bool = False,
        durable: bool = True,
        shard_bytes: int | None = None,
        progress: Progress = silent,
    ) -> None:
        """Write the model, with its weights in ``<name>.data`` if the source had external data too.

        Args:
            path: the file.
            stream: of the model as it is now, if there is one already.
            as_loaded: the file that it was loaded from must be unchanged, as its data files must be.
            durable: wait until the disk has it, as only files of passing use need not.
            shard_bytes: put the weights into files of at most so many bytes.
            progress: is told how many megabytes of weights are written.

        Raises:
            ModelError: the path can't be written, or what the model reads was changed; nothing is left
                behind then.
        """
        read = self.stamps if as_loaded else self.stamps.only(self.data_files)
        write(
            self.ir, Path(path), external=bool(self.data_files), protected=self.data_files, stream=stream,
            read=read, durable=durable, shard_bytes=shard_bytes, progress=progress,
        )  # fmt: skip


#: What :func:`load` takes.
Source: TypeAlias = "str | Path | onnx.ModelProto | gs.Graph | ir.Model | Model"


def load(source: Source) -> Model:
    """Read a model: see `Model.load`."""
    return Model.load(source)


def _data_files(model: ir.Model) -> frozenset[Path]:
    """The external data files that the tensors of ``model`` are in."""
    external = (tensor for tensor in tensors(model) if isinstance(tensor, ir.ExternalTensor))
    return frozenset(Path(tensor.path).absolute() for tensor in external)


def _embedded(model: ir.Model) -> onnx.ModelProto:
    """``model`` as a proto that holds every initializer's bytes."""
    if any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors(model)):
        # onnx_ir would close the mapped file, while others may still look at tensors in it.
        model = model.clone()
        for value in (v for graph in model.graphs() for v in graph.initializers.values()):
            if value.const_value is not None:
                value.const_value = loaded(value.const_value)
    try:
        return ir.serde.serialize_model(model)
    except ir.serde.SerdeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ModelError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from None  # a weight that can't be read any more
        raise


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _proto_digest(proto: onnx.ModelProto) -> str:
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
