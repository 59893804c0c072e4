"""ONNX to ONNX: a checked copy, or another opset version."""

from __future__ import annotations

from pathlib import Path

import onnx
from graphprune.converters import parity
from graphprune.converters.report import ConversionReport, describe
from graphprune.converters.sample import random_feeds
from graphprune.converters.staging import staged
from graphprune.converters.widening import runnable
from onnx import version_converter

from graphprune.errors import GraphPruneError, ModelError
from graphprune.storage.external_places import external_files
from graphprune.storage.writing import data_file, require_apart


def to_onnx(source: str, out: str | Path, *, opset: int | None = None) -> ConversionReport:
    """Copies an ONNX file with its external data, raising (or lowering) its opset if asked.

    Args:
        source: the ONNX file.
        out: the ONNX file to write.
        opset: version of the default domain; None keeps the file's.

    Raises:
        ModelError: the file can't be read, run or converted.
        ValidationError: the converted file computes something else.
        UsageError: ``out`` holds weights of the source.
    """
    file, out = Path(source), Path(out)
    try:
        beside = [file.parent / name for name in external_files(file)]
        model = onnx.load(file, load_external_data=False)
        require_apart([out], beside)
        onnx.load_external_data_for_model(model, str(file.parent))
    except GraphPruneError:
        raise
    except Exception as error:  # protobuf, OS and onnx errors
        what = f"cannot read the ONNX file '{file}'"
        raise ModelError(what, because=parity.first_line(error)) from error
    with runnable(file) as opened:
        feeds = random_feeds(parity.session(opened))
    expected = parity.run(file, feeds)
    current = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset not in (None, current):
        try:
            model = version_converter.convert_version(model, opset)
        except Exception as error:
            what = f"cannot convert '{file}' from opset {current} to opset {opset}"
            raise ModelError(what, because=parity.first_line(error)) from error
    exporter = "copy" if opset in (None, current) else "version_converter"
    with staged(out) as written:
        large = model.ByteSize() > onnx.checker.MAXIMUM_PROTOBUF
        if large:
            require_apart([data_file(out)], beside)
        onnx.save(model, written, save_as_external_data=large, location=f"{out.name}.data")
        measured = parity.check(list(expected.values()), parity.run(written, feeds), where=source)
        return describe(written, source=source, out=out, framework="onnx", exporter=exporter, parity=measured)
