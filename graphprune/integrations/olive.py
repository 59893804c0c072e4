"""A pass for Microsoft Olive: prunes an ONNX model within an Olive workflow.

Olive finds it by a package config, which :func:`package_config` makes (docs/pipelines.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from olive.common.config_utils import ParamCategory, validate_config
from olive.data.config import DataConfig
from olive.hardware import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam

from graphprune.api import prune
from graphprune.calibration.samples import SampleSource
from graphprune.errors import UsageError
from graphprune.storage.text_files import write_text
from graphprune.target import parse_target

#: Option of :func:`graphprune.prune` -> its type and what it is.
_OPTIONS: dict[str, tuple[Any, str]] = {
    "recipe": (str, "A named combination of criterion, allocator and compensator."),
    "criterion": (str, "Importance of a unit."),
    "allocator": (str, "How the budget is shared."),
    "compensator": (str, "What the kept weights become."),
    "samples": (int, "How many calibration samples are used."),
    "kinds": (list[str], "Kinds of groups that may shrink."),
    "exact_only": (bool, "No group over which a norm, softmax or mean runs."),
    "include": (list[str], "Globs over what may shrink."),
    "exclude": (list[str], "Globs over what is left alone."),
    "align": (str, 'Widths are kept as multiples of this; "auto": as the machine likes them.'),
    "floor": (float, "Smallest kept fraction of each group."),
    "dims": (dict[str, int], "Sizes for symbolic dimensions."),
    "seed": (int, "Of everything random."),
}


class GraphPrune(Pass):  # type: ignore[misc]
    """Structured pruning: fewer channels, heads and experts, with the kept weights re-solved."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        found = {
            "target": PassConfigParam(
                type_=str, default_value="macs=50%",
                description="What may be kept, as on the command line: macs=50%, or macs=50%,bytes=20MB.",
            ),
            "calibration": PassConfigParam(
                type_=str, default_value=None, category=ParamCategory.PATH,
                description="An .npz of arrays named as the model's inputs.",
            ),
            "data_config": PassConfigParam(
                type_=DataConfig | dict, default_value=None,
                description="Olive's data config of the calibration samples, instead of an .npz.",
            ),
            "plan_out": PassConfigParam(
                type_=str, default_value=None, description="Where to write the plan."
            ),
            "report": PassConfigParam(
                type_=str, default_value=None, description="Where to write the HTML report."
            ),
        }  # fmt: skip
        for name, (kind, text) in _OPTIONS.items():
            found[name] = PassConfigParam(type_=kind, default_value=None, description=text)
        return found

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        if not isinstance(model, ONNXModelHandler):
            message = f"a {type(model).__name__} is no ONNX model"
            raise UsageError(message, hint="an Olive pass before this one that converts to ONNX")
        path = Path(resolve_onnx_path(output_model_path))
        path.parent.mkdir(parents=True, exist_ok=True)
        given = {name: getattr(config, name) for name in _OPTIONS}
        options = {name: value for name, value in given.items() if value is not None}
        prune(
            model.model_path, path, target=dict(parse_target(item) for item in config.target.split(",")),
            calibration=_calibration(config), plan_out=config.plan_out, report=config.report, **options,
        )  # fmt: skip
        # The folder holds nothing but the model, so that external data travel along.
        has_data = path.with_name(f"{path.name}.data").exists()
        return ONNXModelHandler(
            path.parent if has_data else path, onnx_file_name=path.name if has_data else None
        )


def _calibration(config: Any) -> SampleSource | None:
    if config.calibration is not None and config.data_config is not None:
        message = "calibration samples are given twice"
        raise UsageError(message, hint="calibration, or data_config")
    if config.data_config is None:
        return None if config.calibration is None else str(config.calibration)
    container = validate_config(config.data_config, DataConfig).to_data_container()
    return _batches(container.create_calibration_dataloader())


def _batches(loader: Any) -> Iterator[Mapping[str, np.ndarray[Any, Any]]]:
    """Arrays by name; Olive's loaders give labels beside them."""
    for item in loader:
        feeds = item[0] if isinstance(item, (tuple, list)) else item
        yield {name: np.asarray(value) for name, value in feeds.items()}


def package_config(path: str | Path) -> str:
    """Writes Olive's own package config with this pass added, for ``olive run --package-config``.

    Args:
        path: of the file to write.

    Returns:
        The path as a text.
    """
    document = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8"))
    document["passes"]["GraphPrune"] = {
        "module_path": f"{__name__}.GraphPrune",
        "supported_providers": ["*"], "supported_accelerators": ["*"],
        "supported_precisions": ["*"], "supported_algorithms": [], "supported_quantization_encodings": [],
        "dataset": "dataset_optional",
    }  # fmt: skip
    write_text(Path(path), json.dumps(document, indent=1) + "\n", "the package config")
    return str(path)
