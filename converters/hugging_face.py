"""A folder that ``save_pretrained`` wrote (``config.json`` and weights) as a torch module with inputs.

Nothing is downloaded: what is not in the folder is an error.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphprune.converters import parity
from graphprune.converters import source as sources
from graphprune.converters.quiet import quiet
from graphprune.converters.torch import require_torch

from graphprune.errors import ModelError

# Of different lengths, so that outputs tell which one they follow.
BATCH, LENGTH, DECODED, FRAMES, SAMPLES = 2, 16, 12, 128, 8000
WEIGHTS = ("*.safetensors", "*.bin")
TEXT = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")
FACTORY = "module:factory, where factory() calls from_pretrained and returns (model, example_inputs)"


def load(path: Path, *, trust: bool = False) -> tuple[Any, dict[str, Any], dict[str, dict[int, str]]]:
    """The model, example inputs by name, and the axes besides the batch that should stay free.

    The class is the one that the configuration names under ``architectures``. Caches of past keys and
    values are switched off, so that outputs are plain tensors.

    Args:
        path: the folder.
        trust: run the model code in the folder, if the configuration asks for some.

    Raises:
        ModelError: torch or transformers is missing, the folder lacks something, or there is no
            telling what the model reads.
    """
    require_torch()
    config = _settings(path)
    if not any(True for pattern in WEIGHTS for _ in path.glob(pattern)):
        what = f"there are no weights in '{path}'"
        raise ModelError(what, because="neither .safetensors nor .bin", hint=FACTORY)
    if config.get("auto_map") and not trust:
        what = f"the model in '{path}' is code of its own, and loading it runs that code"
        raise ModelError(what, because="its config.json has an 'auto_map'", hint="--trust (trust=True)")
    with quiet(), _offline():
        try:
            import transformers
        except ImportError as error:
            package = "transformers"
            raise sources.missing(package, package) from error
        kind = _class(transformers, config, path)
        try:
            model, loading = kind.from_pretrained(
                path, local_files_only=True, trust_remote_code=trust, output_loading_info=True
            )
        except Exception as error:  # transformers raises classes of many kinds
            what = f"transformers cannot load '{path}'"
            because = f"{type(error).__name__}: {parity.first_line(error)}"
            raise ModelError(what, because=because, hint=FACTORY) from error
    absent = sorted(loading["missing_keys"])
    if absent:
        what = f"{len(absent)} parameters of {kind.__name__} are not in '{path}'"
        because = f"they would be random: {', '.join(absent[:3])}{' ...' if absent[3:] else ''}"
        raise ModelError(what, because=because, hint=FACTORY)
    return model, *prepared(model, str(path))


def is_model(module: Any) -> bool:
    """Whether the library knows what it reads; told without importing it."""
    return any(
        cls.__name__ == "PreTrainedModel" and cls.__module__.startswith("transformers.")
        for cls in type(module).__mro__
    )


def prepared(model: Any, where: str) -> tuple[dict[str, Any], dict[str, dict[int, str]]]:
    """Switches caches off, and makes up inputs and their free axes; see :func:`load`.

    Raises:
        ModelError: there is no telling what the model reads.
    """
    plain(model)
    inputs = _inputs(model, where)
    free = {name: {1: "sequence"} for name in inputs if name in TEXT and not name.startswith("decoder")}
    free.update({name: {1: "decoder_sequence"} for name in inputs if name.startswith("decoder")})
    return inputs, free


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"cannot read '{path / 'config.json'}'"
        raise ModelError(what, because=parity.first_line(error)) from error
    if not isinstance(found, dict) or "model_type" not in found:
        what = f"'{path / 'config.json'}' is no configuration of transformers"
        raise ModelError(what, because="it has no 'model_type'", hint=FACTORY)
    return found


def _class(transformers: Any, config: dict[str, Any], path: Path) -> Any:
    names = config.get("architectures") or []
    if config.get("auto_map"):
        autos = [name for name in config["auto_map"] if name.startswith("AutoModel")]
        return getattr(transformers, autos[0] if autos else "AutoModel")
    if not names:
        return transformers.AutoModel
    kind = getattr(transformers, names[0], None)
    if kind is None:
        what = f"transformers {transformers.__version__} has no class '{names[0]}'"
        raise ModelError(what, where=str(path / "config.json"), hint=FACTORY)
    return kind


def plain(model: Any) -> None:
    """No cache among the outputs, and experts by plain matrix products, which every exporter knows."""
    for config in {id(c): c for c in (getattr(m, "config", None) for m in model.modules()) if c}.values():
        config.use_cache = False
        if hasattr(config, "_experts_implementation"):
            config._experts_implementation = "batched_mm"


def _inputs(model: Any, where: str) -> dict[str, Any]:
    """Two samples of whatever ``forward`` reads, told from its parameters' names and the sizes."""
    import torch

    config, generator = model.config, torch.Generator().manual_seed(0)
    known = inspect.signature(model.forward).parameters
    main = model.main_input_name
    text = config.get_text_config() if hasattr(config, "get_text_config") else config

    def tokens(length: int) -> Any:
        count = int(getattr(text, "vocab_size", 0) or getattr(config, "vocab_size", 0) or 2)
        return torch.randint(0, count, (BATCH, length), generator=generator)

    def normal(*shape: int) -> Any:
        return torch.randn(BATCH, *shape, generator=generator).to(model.dtype)

    inputs: dict[str, Any] = {}
    vision = getattr(config, "vision_config", None) or config
    wants_pixels = main == "pixel_values" or getattr(config, "vision_config", None) is not None
    if "input_ids" in known and main != "pixel_values":
        inputs["input_ids"] = tokens(LENGTH)
    if "pixel_values" in known and wants_pixels:
        size = getattr(vision, "image_size", None) or 224
        sides = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
        inputs["pixel_values"] = normal(getattr(vision, "num_channels", 3), *sides)
    if main == "input_values":
        inputs["input_values"] = normal(SAMPLES)
    if main == "input_features":
        frames = 2 * getattr(config, "max_source_positions", FRAMES // 2)
        inputs["input_features"] = normal(getattr(config, "num_mel_bins", 80), frames)
    if "attention_mask" in known and "input_ids" in inputs:
        inputs["attention_mask"] = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in known:
        inputs["decoder_input_ids"] = tokens(DECODED)
    if main not in inputs:
        what = f"cannot make up example inputs of {type(model).__name__}"
        raise ModelError(what, where=where, because=f"its main input is '{main}'", hint=FACTORY)
    return inputs


@contextmanager
def _offline() -> Iterator[None]:
    """The hub's client asks nobody, whatever a file refers to."""
    name, before = "HF_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE")
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
