"""In what a provider computes, where it is the provider that chooses."""

from __future__ import annotations

from collections.abc import Mapping

from graphprune.errors import UsageError

PRECISIONS = ("fp32", "fp16", "int8")
_TENSORRT = {"fp32": {}, "fp16": {"trt_fp16_enable": "1"}, "int8": {"trt_int8_enable": "1"}}


def options_for(name: str, precision: str | None, options: Mapping[str, str] | None) -> dict[str, str]:
    """The provider's options for a precision, and those that the user gave.

    Args:
        name: short name of the provider.
        precision: one of :data:`PRECISIONS`, or None: as the provider does by itself.
        options: further ones, which win.

    Raises:
        UsageError: there is no such precision, or the provider computes as the model says.
    """
    if precision is None:
        return dict(options or {})
    if precision not in PRECISIONS:
        what = f"there is no precision '{precision}'"
        raise UsageError(what, hint=f"one of {', '.join(PRECISIONS)}")
    if name == "trt":
        return dict(options or {})
    if name == "tensorrt":
        return {**_TENSORRT[precision], **(options or {})}
    if name == "openvino" and precision != "int8":
        return {"precision": precision.upper(), **(options or {})}
    what = f"the provider '{name}' computes in what the model says"
    raise UsageError(
        what, because=f"--precision {precision} is for trt, tensorrt and openvino", hint="convert the model"
    )
