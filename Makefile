# Every target sets up what it needs: python3 (3.10 or newer) is enough.
PYTHON ?= python3
PIP = -m pip --disable-pip-version-check install --quiet --constraint requirements/constraints.txt
WORKERS ?= 2
FOLDERS = graphprune passes converters models

.PHONY: demo test test-frameworks lint clean

demo: .venv/core.stamp  ## prune the bundled model and show the result
	.venv/bin/graphprune demo

test: .venv/dev.stamp  ## all tests that need no framework; says how many are left out
	.venv/bin/python -m pytest -n $(WORKERS)

# The frameworks live in one environment but not in one process.
test-frameworks: .venv-frameworks/stamp  ## the tests that need torch, scikit-learn, JAX or TensorFlow
	.venv-frameworks/bin/python -m pytest -n $(WORKERS) --frameworks -m 'torch or transformers or skl2onnx'
	.venv-frameworks/bin/python -m pytest --frameworks -m jax
	.venv-frameworks/bin/python -m pytest --frameworks -m tensorflow

# Static tools don't follow setuptools' package-dir, so the types are checked on a regular install.
# setuptools leaves build/ behind, from which a later install would take modules that are long gone.
lint: .venv-lint/stamp  ## ruff, and mypy --strict on the installed package
	.venv-lint/bin/ruff check .
	.venv-lint/bin/ruff format --check .
	.venv-lint/bin/python $(PIP) --no-deps --force-reinstall .
	rm -rf build
	cd .venv-lint && bin/mypy --strict --config-file ../pyproject.toml -p graphprune

clean:  ## everything that the targets above made
	rm -rf .venv .venv-frameworks .venv-lint build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(FOLDERS) tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/core.stamp: pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) -e .
	touch $@

.venv/dev.stamp: .venv/core.stamp
	.venv/bin/python $(PIP) -e '.[dev]'
	touch $@

# torch first and pinned: resolved among others, its plain name brings the CUDA wheels.
.venv-frameworks/stamp: pyproject.toml requirements/frameworks.txt requirements/constraints.txt
	$(PYTHON) -m venv .venv-frameworks
	.venv-frameworks/bin/python $(PIP) --constraint requirements/frameworks.txt torch
	.venv-frameworks/bin/python $(PIP) --constraint requirements/frameworks.txt -e '.[dev,torch,transformers,sklearn,jax,tensorflow]'
	touch $@

.venv-lint/stamp: pyproject.toml
	$(PYTHON) -m venv .venv-lint
	.venv-lint/bin/python $(PIP) mypy ruff .
	rm -rf build
	touch $@
