"""The same command gives the same bytes: in any process, whatever its hash seed and its threads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import NETWORKS, feeds

from graphprune.steady import product, steady
from graphprune.steady import threads as threads_now

RECIPES = ("l2", "graphprune", "obspa")
#: Prunes by every recipe, with samples and without, in one process.
SCRIPT = """
import os, sys
if sys.argv[1] == "one":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import graphprune as gp
for name in ("cnn", "attention"):
    for recipe in ("l2", "graphprune", "obspa"):
        for given in (f"{name}.npz", None):
            if recipe == "l2" and given:
                continue
            how = {"recipe": recipe, "calibration": given, "samples": 48}
            how = {"criterion": "l2"} if recipe == "l2" else how
            out = f"{sys.argv[1]}-{name}-{recipe}-{'given' if given else 'made'}"
            gp.prune(
                f"{name}.onnx", f"{out}.onnx", plan_out=f"{out}.json", target={"params": 0.7}, seed=3, **how
            )
"""
#: What linear algebra makes of matrices that are large enough to be shared among threads.
ALGEBRA = """
import hashlib
import numpy as np
from graphprune.steady import product, steady
numbers = np.random.default_rng(0)
a = numbers.standard_normal((700, 700))
with steady():
    parts = [np.linalg.solve(a, a[:, :300]), np.linalg.inv(a), *np.linalg.eigh(a @ a.T), product(a.T, a)]
    parts += [np.vdot(a, a), a @ a[0], a.T @ a[0], np.linalg.norm(a)]
print(*(hashlib.sha256(np.ascontiguousarray(part)).hexdigest() for part in parts))
"""


def environment(threads: str, seed: str) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, threads), "PYTHONHASHSEED": seed}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="can't be told to use one processor")
def test_processes_hash_seeds_threads(tmp_path: Path) -> None:
    for name in ("cnn", "attention"):
        onnx.save(NETWORKS[name](), tmp_path / f"{name}.onnx")
        np.savez(tmp_path / f"{name}.npz", **feeds(NETWORKS[name](), batch=60))
    runs = {"one": environment("1", "1"), "all": environment("4", "77")}
    for which, setting in runs.items():
        subprocess.run(
            [sys.executable, "-c", SCRIPT, which], env=setting, cwd=tmp_path, check=True, capture_output=True
        )
    ones = sorted(tmp_path.glob("one-*"))
    assert len(ones) == 2 * 2 * 5
    for one in ones:
        other = one.with_name(one.name.replace("one-", "all-", 1))
        assert one.read_bytes() == other.read_bytes(), one.name


def test_linear_algebra_does_not_depend_on_threads() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", ALGEBRA], env=environment(threads, "0"), check=True,
            capture_output=True, text=True,
        ).stdout
        for threads in ("1", "2", "4")
    }  # fmt: skip
    assert len(found) == 1


def test_the_number_of_threads_comes_back() -> None:
    before = threads_now()
    with steady():
        assert threads_now() == 1
        with steady():
            assert threads_now() == 1
        assert threads_now() == 1
    assert threads_now() == before


def test_steady_in_two_threads_at_once() -> None:
    """The first to leave does not take from the second what it counts on."""
    before, seen = threads_now(), []
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with steady():
            inside.set()
            leave.wait(10)
            seen.append(threads_now())

    thread = threading.Thread(target=other)
    with steady():
        thread.start()
        inside.wait(10)
    leave.set()
    thread.join()
    assert seen == [1]
    assert threads_now() == before


@pytest.mark.parametrize(("n", "d", "m"), [(40, 30, 20), (300, 1100, 700), (64, 513, 1)])
def test_products_by_tiles(n: int, d: int, m: int) -> None:
    numbers = np.random.default_rng(0)
    a, b = (numbers.standard_normal(shape) for shape in ((n, d), (n, m)))
    np.testing.assert_allclose(product(a.T, b), a.T @ b, rtol=1e-12, atol=1e-11)
    square = product(a.T, a)
    np.testing.assert_allclose(square, a.T @ a, rtol=1e-12, atol=1e-11)
    assert np.array_equal(square, square.T)
    same = a[:, ::-1]  # the same memory, read another way
    np.testing.assert_allclose(product(a.T, same), a.T @ same, rtol=1e-12, atol=1e-11)


def test_hashes_tell_files_apart(tmp_path: Path) -> None:
    """The comparison above can fail: another seed makes other files."""
    import graphprune as gp

    model = NETWORKS["cnn"]()
    digests = set()
    for seed in (3, 4):
        gp.prune(model, tmp_path / "o.onnx", target={"params": 0.7}, recipe="obspa", samples=48, seed=seed)
        digests.add(hashlib.sha256((tmp_path / "o.onnx").read_bytes()).hexdigest())
    assert len(digests) == 2
