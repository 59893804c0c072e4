"""Find and call what the user named: ``module:factory`` or ``path/to/file.py:factory``."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from graphprune.converters.parity import first_line

from graphprune.errors import ModelError

FRAMEWORK_OF_PACKAGE = {
    "torch": "torch",
    "keras": "tensorflow",
    "tensorflow": "tensorflow",
    "jax": "jax",
    "jaxlib": "jax",
    "flax": "jax",
    "equinox": "jax",
    "sklearn": "sklearn",
}
EXTRA_OF_PACKAGE = {**FRAMEWORK_OF_PACKAGE, "transformers": "transformers"}


def missing(package: str, extra: str) -> ModelError:
    """The error for a framework that is not installed."""
    return ModelError(f"{package} is not installed", hint=f"pip install 'graphprune[{extra}]'")


def is_factory(source: str) -> bool:
    """Whether ``source`` has the form ``module:factory``."""
    module, _, name = source.rpartition(":")
    return bool(module) and name.isidentifier() and not Path(source).exists()


def load_factory(source: str) -> Callable[[], Any]:
    """The callable that ``module:factory`` names; the working directory is importable meanwhile.

    Raises:
        ModelError: there is no such module or attribute, or importing it raises.
    """
    module_name, _, name = source.rpartition(":")
    try:
        with importable(Path.cwd()):
            module = _import(module_name)
    except ModuleNotFoundError as error:
        root = (error.name or "").partition(".")[0]
        if root in EXTRA_OF_PACKAGE:
            raise missing(root, EXTRA_OF_PACKAGE[root]) from error
        hint = "run in the folder that holds it, or give path/to/file.py:factory"
        msg = f"cannot import '{module_name}'"
        raise ModelError(msg, because=str(error), hint=hint) from error
    except Exception as error:  # user code
        msg = f"importing '{module_name}' raises"
        raise ModelError(msg, because=_said(error)) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        what = f"'{module_name}' has no function '{name}'"
        raise ModelError(what, where=source, hint="module:factory, called without arguments")
    return factory  # type: ignore[no-any-return]


def call_factory(factory: Callable[[], Any], source: str) -> Any:
    """What the factory returns; what it prints goes to stderr.

    Raises:
        ModelError: it raises.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), importable(Path.cwd()):
            return factory()
    except ModuleNotFoundError as error:
        root = (error.name or "").partition(".")[0]
        if root in EXTRA_OF_PACKAGE:
            raise missing(root, EXTRA_OF_PACKAGE[root]) from error
        msg = f"the factory '{source}' raises"
        raise ModelError(msg, because=_said(error)) from error
    except Exception as error:  # user code
        msg = f"the factory '{source}' raises"
        raise ModelError(msg, because=_said(error)) from error


def framework_of(made: object) -> str | None:
    """The framework, told from the object's classes without importing any.

    A plain function has none; its example inputs tell.
    """
    for part in _parts(made):
        for cls in type(part).__mro__:
            framework = FRAMEWORK_OF_PACKAGE.get(cls.__module__.partition(".")[0])
            if framework:
                return framework
    return None


def _parts(made: object) -> Iterator[object]:
    if isinstance(made, Mapping):
        made = tuple(made.values())
    if isinstance(made, (tuple, list)):
        for part in made:
            yield from _parts(part)
    else:
        yield made


def _import(name: str) -> ModuleType:
    file = Path(name)
    if file.suffix != ".py":
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        message = f"no such file: '{name}'"
        raise ModuleNotFoundError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """``folder`` on the import path for a while, after everything that is installed."""
    entry = str(folder)
    sys.path.append(entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
