# Every target sets up what it needs: python3 (3.10 or newer) is enough.
PYTHON ?= python3
PIP = -m pip --disable-pip-version-check install --quiet --constraint requirements/constraints.txt
LOCKED = -m pip --disable-pip-version-check install --quiet --require-hashes --requirement
COMPILE = .venv-lock/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.10 \
	--no-header --no-annotate --constraint requirements/constraints.txt pyproject.toml
WORKERS ?= 2
FOLDERS = graphprune passes converters models

.PHONY: demo test test-frameworks lint audit lock clean

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
lint: .venv-lint/stamp audit  ## ruff, mypy --strict on the installed package, and audit
	.venv-lint/bin/ruff check .
	.venv-lint/bin/ruff format --check .
	.venv-lint/bin/python $(PIP) --no-deps --force-reinstall .
	rm -rf build
	cd .venv-lint && bin/mypy --strict --config-file ../pyproject.toml -p graphprune

# Where the advisory service can't be reached it says so, and is no failure; AUDIT=required makes it one.
audit: .venv-lint/stamp  ## known vulnerabilities in what is locked
	.venv-lint/bin/python .ci/audit.py requirements/lint.txt

lock: .venv-lock/stamp  ## the newest versions that pyproject.toml allows, with their hashes
	printf '%s\n' '# What `make test` installs, with hashes; written by `make lock`.' > requirements/dev.txt
	$(COMPILE) --extra dev >> requirements/dev.txt
	printf '%s\n' '# What `make lint` installs, with hashes; written by `make lock`.' > requirements/lint.txt
	$(COMPILE) --extra dev --extra audit >> requirements/lint.txt

clean:  ## everything that the targets above made
	rm -rf .venv .venv-frameworks .venv-lint .venv-lock build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(FOLDERS) tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/core.stamp: pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) -e .
	touch $@

.venv/dev.stamp: .venv/core.stamp requirements/dev.txt
	.venv/bin/python $(LOCKED) requirements/dev.txt
	.venv/bin/python $(PIP) --no-deps -e .
	touch $@

# torch first and pinned: resolved among others, its plain name brings the CUDA wheels.
.venv-frameworks/stamp: pyproject.toml requirements/frameworks.txt requirements/constraints.txt
	$(PYTHON) -m venv .venv-frameworks
	.venv-frameworks/bin/python $(PIP) --constraint requirements/frameworks.txt torch
	.venv-frameworks/bin/python $(PIP) --constraint requirements/frameworks.txt -e '.[dev,torch,transformers,sklearn,jax,tensorflow]'
	touch $@

.venv-lint/stamp: pyproject.toml requirements/lint.txt
	$(PYTHON) -m venv .venv-lint
	.venv-lint/bin/python $(LOCKED) requirements/lint.txt
	.venv-lint/bin/python $(PIP) --no-deps .
	rm -rf build
	touch $@

.venv-lock/stamp:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python $(PIP) uv
	touch $@
