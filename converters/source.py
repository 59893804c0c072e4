"""Find and call what the user named: ``module:factory`` or ``path/to/file.py:factory``."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import traceback
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


def files_of(source: str) -> list[Path]:
    """The file that a source is read from; none where it is a module or a folder."""
    file = Path(source.rpartition(":")[0] if is_factory(source) else source)
    return [file] if file.is_file() else []


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
    except (Exception, SystemExit) as error:  # user code
        msg = f"importing '{module_name}' raises"
        raise ModelError(msg, where=_place(error), because=_said(error)) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        what = f"'{module_name}' has no function '{name}'"
        raise ModelError(what, where=source, hint="module:factory, called without arguments")
    return factory  # type: ignore[no-any-return]


def call_factory(factory: Callable[[], Any], source: str) -> Any:
    """What the factory returns; what it prints goes to stderr.

    Raises:
        ModelError: it raises, or returns None.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), importable(Path.cwd()):
            made = factory()
    except ModuleNotFoundError as error:
        root = (error.name or "").partition(".")[0]
        if root in EXTRA_OF_PACKAGE:
            raise missing(root, EXTRA_OF_PACKAGE[root]) from error
        raise _raises(source, error) from error
    except (Exception, SystemExit) as error:  # user code
        raise _raises(source, error) from error
    if made is None:
        msg = f"the factory '{source}' returns None"
        raise ModelError(msg, hint="let it return the model, or (model, example_inputs)")
    return made


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


def _raises(source: str, error: BaseException) -> ModelError:
    return ModelError(f"the factory '{source}' raises", where=_place(error), because=_said(error))


def _said(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r})"
    return f"{type(error).__name__}: {first_line(error)}"


def _place(error: BaseException) -> str | None:
    """The last line of the user's own code on the way to an error: file and number."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(Path(frame.filename))]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None


def _is_own(file: Path) -> bool:
    """Neither installed, nor of Python, nor ours."""
    if file.name.startswith("<") or {"site-packages", "dist-packages"} & set(file.parts):
        return False
    others = (Path(__file__).parent, Path(os.__file__).parent)
    return not any(file.is_relative_to(folder) for folder in others)


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """``folder`` on the import path for a while, after everything that is installed."""
    entry = str(folder)
    sys.path.append(entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
