"""These test the NTK class as a SciPy operator: storage and memory, bad input, progress, Ctrl-C, import."""

from __future__ import annotations

import copy
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, eigsh, lobpcg, svds

import ntkfast
from cases import OPERATORS
from images import natural, noise
from ntkfast import NNGP, NTK, Conv, Network, NoiseInput, ReLU, _core, autoencoder, kernel, unet, vanilla_cnn
from ntkfast.engine import memory
from ntkfast.engine.cpu import CpuBackend
from ntkfast.images import without_mean
from ntkfast.reference import kernel_matrix

NET = vanilla_cnn(1, 5)


def operator(dtype="float64", storage="stream", shape=(8, 9, 3), kernel="ntk", **options):
    return OPERATORS[kernel](NET, natural(*shape, 0), dtype=dtype, storage=storage, **options, channel_axis=-1)


def relative(actual, expected):
    assert np.shape(actual) == np.shape(expected)
    return np.abs(actual - expected).max() / np.abs(expected).max()


class Fenced:
    """Some calls must not be made of this engine."""

    def __init__(self, engine, *forbidden):
        self._engine, self._forbidden = engine, forbidden

    def __getattr__(self, name):
        assert name not in self._forbidden, f"the engine's {name} was used"
        return getattr(self._engine, name)


def run_python(code, timeout=60):
    """Return the last line that ``code`` prints in a process of its own, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# --- A linear operator --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["stream", "dense"])
def K(request):  # noqa: N802
    return operator(storage=request.param)


@pytest.fixture(scope="module")
def theta():
    return kernel_matrix(NET, natural(8, 9, 3, 0), channel_axis=-1)


def test_is_a_linear_operator(K):
    assert isinstance(K, LinearOperator)
    assert aslinearoperator(K) is K
    assert K.shape == (72, 72)
    assert K.dtype == np.float64
    assert operator("float32").dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_in_all_their_spellings(dtype, theta):
    K = operator(dtype)
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    v, V = noise(72, 1, 1, 1)[:, 0, 0], noise(72, 3, 1, 2)[..., 0]
    for result in (K @ v, K.dot(v), K.matvec(v), K.rmatvec(v), K * v, K.T @ v, K.H @ v, K.adjoint() @ v, v @ K):
        assert result.dtype == dtype
        assert relative(result, theta @ v) <= tolerance
    for result in (K @ V, K.matmat(V), K.rmatmat(V), K.T @ V):
        assert result.dtype == dtype
        assert relative(result, theta @ V) <= tolerance
    assert relative(K.matvec(v[:, None]), (theta @ v)[:, None]) <= tolerance
    assert (K @ np.empty((72, 0))).shape == (72, 0)


def test_products_of_any_real_type_and_layout(K, theta):
    V = np.random.default_rng(0).integers(0, 9, (72, 6))
    for v in (V, V.astype(np.uint8), V.astype(np.float16), V > 4, np.asfortranarray(V), V[:, ::-2], V[::-1]):
        assert relative(K @ v, theta @ v.astype(float)) <= 1e-12


def test_operators_made_of_it(K, theta):
    v = noise(72, 1, 1, 1)[:, 0, 0]
    one = aslinearoperator(scipy.sparse.identity(72))
    for made, matrix in (
        (2 * K, 2 * theta),
        (-K, -theta),
        (K + 0.1 * one, theta + 0.1 * np.eye(72)),
        (K - K, 0 * theta + 1e-300),
        (K**2, theta @ theta),
        (K @ K.T, theta @ theta),
    ):
        assert np.abs(made @ v - matrix @ v).max() <= 1e-11 * np.abs(theta @ v).max()


def test_transpose_is_the_operator_itself(K):
    assert K.T is K
    assert K.H is K


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eigsh_svds_and_lobpcg(dtype, theta):
    K = operator(dtype)
    values = np.linalg.eigvalsh(theta)[::-1][:3]
    start = np.random.default_rng(0).standard_normal((72, 3))
    tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]
    found = eigsh(K, k=3, v0=start[:, 0], return_eigenvectors=False)
    assert relative(np.sort(found)[::-1], values) <= tolerance
    singular = svds(K, k=2, v0=start[:, 0], return_singular_vectors=False)
    assert relative(np.sort(singular)[::-1], values[:2]) <= tolerance
    found, vectors = lobpcg(K, start.astype(dtype), maxiter=100, tol=1e-4)
    assert relative(found, values) <= 1e-4
    assert vectors.shape == (72, 3)


def test_cg_solves_ridge_regression(K, theta):
    y = noise(72, 1, 1, 1)[:, 0, 0]
    solution, status = cg(K + 0.1 * aslinearoperator(scipy.sparse.identity(72)), y, rtol=1e-10)
    assert status == 0
    assert relative(solution, np.linalg.solve(theta + 0.1 * np.eye(72), y)) <= 1e-8


def test_apply_keeps_the_shape(K, theta):
    rng = np.random.default_rng(1)
    for shape in ((8, 9), (8, 9, 1), (8, 9, 3), (8, 9, 7), (72,), (72, 1), (72, 4)):
        image = rng.standard_normal(shape)
        result = K.apply(image)
        assert result.dtype == np.float64
        assert relative(result, (theta @ image.reshape(72, -1)).reshape(shape)) <= 1e-12
    assert relative(K.apply(image.astype(np.float32).tolist()), theta @ image.astype(np.float32)) <= 1e-12


def test_columns_affinity_diagonal_and_dense_agree(K, theta):
    assert relative(K.dense(), theta) <= 1e-12
    assert relative(K.diagonal(), np.diagonal(theta)) <= 1e-12
    for indices in ([5], [71, 0, 0, 33], range(72), np.arange(3, dtype=np.uint8), (1, 2)):
        assert relative(K.columns(indices), theta[:, list(indices)]) <= 1e-12
    for indices in ([], np.array([], int)):
        assert K.columns(indices).shape == (72, 0)
    for row, col in ((0, 0), (7, 8), (np.int64(3), np.uint8(4))):
        assert relative(K.affinity(row, col), theta[int(row) * 9 + int(col)].reshape(8, 9)) <= 1e-12


def test_results_are_the_callers_own(K):
    v = np.ones(72)
    first = [K @ v, K.dense(), K.columns([1]), K.diagonal(), K.affinity(0, 0)]
    kept = [array.copy() for array in first]
    for array in first:
        array[...] = np.nan
    for again, expected in zip([K @ v, K.dense(), K.columns([1]), K.diagonal(), K.affinity(0, 0)], kept, strict=True):
        np.testing.assert_array_equal(again, expected)


def test_later_changes_of_the_image_do_not_count():
    image = natural(6, 7, 3, 0)
    K = NTK(NET, image, storage="dense", dtype="float64", channel_axis=-1)
    before = K @ np.ones(42)
    image[...] = 0
    np.testing.assert_array_equal(K @ np.ones(42), before)
    np.testing.assert_array_equal(K.diagonal() > 0, True)


def test_names_what_it_is():
    K = operator("float32", "dense", kernel="nngp")
    assert repr(K) == (
        "<8x9 NNGP of Network([Conv(5), ReLU(), Conv(1)], padding='zeros'), dtype=float32, "
        "storage='dense', device='cpu'>"
    )
    assert (type(K), K.device, K.image_shape, K.channels, K.network) == (NNGP, "cpu", (8, 9), 3, NET)
    assert K.lambda_max is None


# --- Columns, storage, memory -------------------------------------------------------------------------------------


def test_columns_of_a_large_image_need_no_sweep():
    image = noise(300, 300, 1, 0)
    K = NTK(NET, image, dtype="float64", channel_axis=-1)
    K._engine = Fenced(K._engine, "dense", "product", "store")
    pixels = [0, 300 * 150 + 150, 300 * 299 + 4]
    columns = K.columns(pixels)
    assert columns.shape == (90000, 3)
    # Pixels whose patches lie in a corner of 7 x 7 have the kernel of that corner cut out.
    theta = kernel_matrix(NET, image[:7, :7], channel_axis=-1).reshape(7, 7, 7, 7)[0, 0, :5, :5]
    assert relative(columns[:, 0].reshape(300, 300)[:5, :5], theta) <= 1e-12
    np.testing.assert_array_equal(K.affinity(150, 150).ravel(), columns[:, 1])


def test_many_columns_take_one_sweep(monkeypatch):
    K = operator(shape=(20, 20, 1), threads=1)
    K._engine = Fenced(K._engine, "columns")
    every = K.columns(range(400))
    np.testing.assert_array_equal(every, K.dense())
    # ... unless the matrix does not fit
    monkeypatch.setattr(memory, "available_memory", lambda: 3 * 8 * 400 * 400)
    with pytest.raises(AssertionError, match="columns was used"):
        K.columns(range(400))


def test_storage_auto_goes_by_size(monkeypatch):
    needed = operator().memory_estimate()
    for free, storage in ((4.1 * needed["dense"], "dense"), (3.9 * needed["dense"], "stream")):
        monkeypatch.setattr(memory, "available_memory", lambda free=free: int(free))
        assert operator(storage="auto").storage == storage
    assert operator(storage="stream").storage == "stream"
    assert operator(storage="dense").storage == "dense"


def test_stores_at_the_first_product_only():
    K = operator(storage="dense")
    assert not K._engine.stored
    K.columns([0])
    assert not K._engine.stored
    first = K @ np.ones(72)
    assert K._engine.stored
    K._engine = Fenced(K._engine, "store")
    np.testing.assert_array_equal(K @ np.ones(72), first)
    streaming = operator(storage="stream")
    streaming._engine = Fenced(streaming._engine, "store")
    assert relative(streaming @ np.ones(72), first) <= 1e-13


def fail(*_args, **_options):
    raise AssertionError("work was begun")


def test_constructor_refuses_what_does_not_fit(monkeypatch):
    needed = operator().memory_estimate()["stream"]
    monkeypatch.setattr(CpuBackend, "make", fail)
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with pytest.raises(MemoryError, match=rf"\({needed} bytes\), but only .*{needed - 1} bytes.*smaller image"):
        operator()


def test_dense_storage_refuses_what_does_not_fit(monkeypatch):
    needed = operator().memory_estimate()["dense"]
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    assert operator(storage="dense").storage == "dense"
    monkeypatch.setattr(CpuBackend, "make", fail)
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with pytest.raises(MemoryError, match=rf"storage='dense' needs .*\({needed} bytes\).*use storage='stream'"):
        operator(storage="dense")


def test_dense_matrix_refuses_what_does_not_fit(monkeypatch):
    K = operator()
    K._engine = Fenced(K._engine, "dense")
    monkeypatch.setattr(memory, "available_memory", lambda: 72 * 72 * 8 - 1)
    with pytest.raises(MemoryError, match=r"dense matrix needs .*\(41472 bytes\).*columns\(\)"):
        K.dense()


def test_columns_refuse_what_does_not_fit(monkeypatch):
    K = operator()
    K._engine = Fenced(K._engine, "columns", "dense")
    monkeypatch.setattr(memory, "available_memory", lambda: 10 * 72 * 8 - 1)
    with pytest.raises(MemoryError, match=r"10 columns needs .* bytes.*fewer columns"):
        K.columns(range(10))
    with pytest.raises(MemoryError, match=r"a column needs .* bytes.*use fewer threads, or a smaller image"):
        K.affinity(3, 4)


def product_bytes(K, count, at_once):
    return K.working_bytes(at_once) + 8 * 72 * (count + 2 * at_once)


def test_products_take_fewer_columns_at_a_time_where_memory_is_short(monkeypatch):
    V = noise(72, 100, 1, 1)[..., 0]
    K, widths = operator(), []
    engine = K._engine

    class Watched(Fenced):
        def product(self, v, progress):
            widths.append(v.shape[1])
            return engine.product(v, progress)

    K._engine = Watched(engine)
    monkeypatch.setattr(kernel, "UNCHECKED_BYTES", 0)
    expected = K @ V
    for at_once, taken in ((64, [64, 36]), (32, [32, 32, 32, 4]), (1, [1] * 100)):
        widths.clear()
        needed = product_bytes(K, 100, at_once)
        monkeypatch.setattr(memory, "available_memory", lambda needed=needed: needed)
        assert relative(K @ V, expected) <= 1e-13
        assert widths == taken


@pytest.mark.parametrize("storage", ["stream", "dense"])
def test_products_refuse_what_does_not_fit(storage, monkeypatch):
    K = operator(storage=storage)
    monkeypatch.setattr(kernel, "UNCHECKED_BYTES", 0)
    engine, K._engine = K._engine, Fenced(K._engine, "product", "store")
    needed = product_bytes(K, 100, 1)
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    hint = "use storage='stream'" if storage == "dense" else "99 columns would fit"
    with pytest.raises(
        MemoryError, match=rf"a product with 100 columns needs .*\({needed} bytes\), but only .*: {hint}"
    ):
        K @ noise(72, 100, 1, 1)[..., 0]
    needed = product_bytes(K, 1, 1)
    hint = "use storage='stream'" if storage == "dense" else "use a smaller image"
    with pytest.raises(MemoryError, match=rf"a product with 1 column needs .*\({needed} bytes\).*: {hint}"):
        K @ np.ones(72)
    K._engine = engine
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    first = K @ np.ones(72)
    if storage == "dense":  # bytes that are stored are no longer asked for
        needed = product_bytes(K, 1, 1)
        assert relative(K @ np.ones(72), first) == 0


def test_many_columns_of_a_large_image_are_refused(monkeypatch):
    K = NTK(vanilla_cnn(1, 5), noise(200, 200, 1, 0), storage="stream", threads=1, channel_axis=-1)
    K._engine = Fenced(K._engine, "product")
    monkeypatch.setattr(memory, "available_memory", lambda: 2**22)
    with pytest.raises(MemoryError, match="a product with 64 columns needs"):
        K @ np.ones((40000, 64), np.float32)


def test_fourier_products_take_fewer_columns_at_a_time(monkeypatch):
    K = NTK(vanilla_cnn(1, 3, padding="circular"), NoiseInput((32, 32)))
    assert K.storage == "fourier"
    V = noise(1024, 5, 1, 0)[..., 0]
    expected = K @ V
    tracemalloc.start()
    K @ V
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.5 * K.working_bytes(5) <= peak <= K.working_bytes(5)
    monkeypatch.setattr(kernel, "UNCHECKED_BYTES", 0)
    needed = K.working_bytes(1) + 4 * 1024 * 7
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    assert relative(K @ V, expected) <= 1e-6
    needed -= 1
    with pytest.raises(MemoryError, match=r"5 columns needs .*: 4 columns would fit"):
        K @ V


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_count_what_the_engine_takes(monkeypatch, dtype):
    K = operator(dtype, shape=(20, 20, 1), threads=2)
    rows = 2 * 3 * 400 * K.dtype.itemsize  # and these turned over
    beyond = K._engine.columns_bytes
    monkeypatch.setattr(memory, "available_memory", lambda: rows + beyond - 1)
    with pytest.raises(MemoryError, match=rf"3 columns needs .*\({rows + beyond} bytes\).*fewer columns"):
        K.columns([1, 2, 3])
    monkeypatch.setattr(memory, "available_memory", lambda: rows + beyond)
    columns = K.columns([1, 2, 3])
    kept = K._engine.columns_bytes  # the fields in double are there now
    assert kept < beyond if dtype == "float32" else kept == beyond
    monkeypatch.setattr(memory, "available_memory", lambda: rows + kept)
    np.testing.assert_array_equal(K.columns([1, 2, 3]), columns)


def test_a_gigapixel_matrix_is_refused_on_any_machine():
    K = NTK(NET, np.ones((1000, 1000)))
    assert K.storage == "stream"
    with pytest.raises(MemoryError, match=r"3\.6 TiB \(4000000000000 bytes\)"):
        K.dense()


def test_memory_estimate_grows_with_the_problem():
    def estimate(columns=3, **options):
        return operator(**options).memory_estimate(columns)

    few, many = estimate(1), estimate(100)
    assert 0 < few["stream"] < many["stream"]
    assert many["dense"] - many["stream"] == few["dense"] - few["stream"] >= 72 * 71 // 2 * 8
    assert estimate(dtype="float32")["dense"] < estimate(dtype="float64")["dense"]
    assert estimate(threads=1)["stream"] < estimate(threads=4)["stream"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
@pytest.mark.parametrize(
    ("size", "dtype", "storage"), [(256, "float32", "stream"), (256, "float64", "stream"), (80, "float32", "dense")]
)
def test_memory_estimate_is_what_a_product_takes(size, dtype, storage):
    # All memory is taken at the start of a product, so that the long ones may stop there.
    taken, predicted = run_python(f"""
        import json, re, time
        from pathlib import Path
        import numpy as np
        from ntkfast import NTK, vanilla_cnn

        def peak():
            return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

        def progress(fraction):
            if time.perf_counter() - start > 0.5 and "{storage}" == "stream":
                raise TimeoutError

        rng = np.random.default_rng(0)
        image, v = rng.standard_normal(({size}, {size}, 3)), rng.standard_normal(({size**2}, 3)).astype("{dtype}")
        options = dict(dtype="{dtype}", storage="{storage}", threads=2, channel_axis=-1)
        NTK(vanilla_cnn(1, 3), image[:5, :5], **options) @ v[:25]  # starts the threads
        before, start = peak(), time.perf_counter()
        K = NTK(vanilla_cnn(1, 3), image, progress=progress, **options)
        try:
            K @ v
        except TimeoutError:
            pass
        print(json.dumps([peak() - before, K.memory_estimate()["{storage}"]]))
    """)
    assert 0.75 * predicted <= taken <= 1.25 * predicted


def test_images_too_large_are_refused_before_they_are_copied():
    image = np.broadcast_to(np.uint8(7), (1_000_000, 1_000_000))
    for call in (lambda: NTK(vanilla_cnn(1, 3), image), lambda: ntkfast.denoise_ntk(image, 1.0)):
        start = time.perf_counter()
        with pytest.raises(MemoryError, match=r"needs .*, but only .* are available: use a smaller image"):
            call()
        assert time.perf_counter() - start < 5  # one look at 10^12 bytes would take minutes


def test_masked_arrays_are_refused_if_they_mask_anything():
    image = np.ma.masked_array(noise(6, 5, 1, 0)[..., 0], mask=np.eye(6, 5))
    for call in (lambda x: NTK(vanilla_cnn(1, 3), x), lambda x: ntkfast.denoise_ntk(x, 1.0)):
        with pytest.raises(TypeError, match="image must not be a masked array: fill"):
            call(image)
        call(np.ma.masked_array(image.data))


def test_memory_in_words():
    assert memory.readable(1023) == "1023 bytes"
    assert memory.readable(3 * 2**29) == "1.5 GiB (1610612736 bytes)"
    assert memory.available_memory() > 0


GROUP_FILES = {
    2: ("memory.max", "memory.current", "memory.stat", "anon 7\ninactive_file 300\nactive_file 9\n"),
    1: (
        "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat",
        "inactive_file 2\ntotal_inactive_file 300\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", [2, 1])
def test_memory_of_a_control_group(version, tmp_path, monkeypatch):
    """A control group leaves bytes; those that it has of files count as free."""
    groups = [(str(tmp_path / folder), *rest) for folder, (_, *rest) in zip("ab", memory.CONTROL_GROUPS, strict=True)]
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tuple(groups))
    monkeypatch.setattr(memory, "_free_memory", lambda: 5000)
    assert memory.available_memory() == 5000
    folder = tmp_path / "ab"[version == 1]
    folder.mkdir()
    limit, usage, stat, lines = GROUP_FILES[version]
    (folder / limit).write_text("2000\n")
    (folder / usage).write_text("1500\n")
    assert memory.available_memory() == 500
    (folder / stat).write_text(lines)
    assert memory.available_memory() == 800
    (folder / usage).write_text("2500\n")
    assert memory.available_memory() == 0
    (folder / usage).write_text("100\n")  # the files have just been dropped
    assert memory.available_memory() == 2000
    for unlimited in ("max", "9223372036854771712"):
        (folder / limit).write_text(unlimited)
        assert memory.available_memory() == 5000


def test_control_groups_are_where_linux_has_them():
    assert [Path(group[0]) for group in memory.CONTROL_GROUPS] == [
        Path("/sys/fs/cgroup"),
        Path("/sys/fs/cgroup/memory"),
    ]


# --- Bad input ----------------------------------------------------------------------------------------------------


X = np.ones((4, 5))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.ones(4), ValueError, r"image must have shape \(H, W\).*got shape \(4,\)"),
        (np.ones((2, 2, 2, 2)), ValueError, r"image must have .*got shape \(2, 2, 2, 2\)"),
        (3.0, ValueError, r"image must have .*got shape \(\)"),
        (np.ones((0, 4)), ValueError, r"image must not be empty, got shape \(0, 4\)"),
        (np.ones((4, 4, 0)), ValueError, r"image must not be empty, got shape \(4, 4, 0\)"),
        ([], ValueError, r"image must not be empty"),
        (np.array([[1, np.nan], [np.nan, 1]]), ValueError, r"image must be finite, got 2 "),
        (np.array([[1, -np.inf]]), ValueError, r"image must be finite, got 1 "),
        (np.array([[1, np.inf]], np.float16), ValueError, r"image must be finite, got 1 "),
        (np.array([[1, 2j]]), TypeError, r"image must be a real numeric array, got dtype complex"),
        (np.array([["a", "b"]]), TypeError, r"image must be a real numeric array, got dtype <U1"),
        ("photo.png", TypeError, r"image must be a real numeric array"),
        (np.array([[1, None]]), TypeError, r"image must be a real numeric array, got dtype object"),
        (None, TypeError, r"image must be a real numeric array, got dtype object"),
        (np.array([["2020-01-01"]], "M8[D]"), TypeError, r"image must be a real numeric array"),
        ([[1, 2], [3]], ValueError, r"image must be"),
        (np.full((2, 2), 1e16), ValueError, r"image must have magnitudes up to 1e\+15 for dtype float32, got 1e\+16"),
        (np.full((2, 2), -1e16), ValueError, r"image must have magnitudes"),
        (
            np.full((2, 2), 1e-25),
            ValueError,
            r"image must have magnitudes of 1e-18 or more for dtype float32, got at most",
        ),
    ],
    ids=repr,
)
def test_bad_images(image, error, message):
    with pytest.raises(error, match=message):
        NTK(NET, image)


def test_magnitudes_of_double_precision():
    assert np.isfinite(NTK(NET, np.full((2, 2), 1e120), dtype="float64").dense()).all()
    assert np.isfinite(NTK(NET, np.full((2, 2), 1e15), dtype="float32").dense()).all()
    with pytest.raises(ValueError, match=r"magnitudes up to 1e\+120 for dtype float64, got 1e\+121"):
        NTK(NET, np.full((2, 2), 1e121), dtype="float64")
    with pytest.raises(ValueError, match=r"magnitudes of 1e-150 or more for dtype float64, got at most 1e-151"):
        NTK(NET, np.full((2, 2), 1e-151), dtype="float64")


@pytest.mark.parametrize(("dtype", "least"), [("float32", 1e-18), ("float64", 1e-150)])
def test_the_smallest_images_have_a_kernel(dtype, least):
    image = np.zeros((4, 5))
    assert not NTK(NET, image, dtype=dtype).dense().any()
    image[1, 2] = least
    scaled = NTK(NET, image, dtype=dtype).dense() / least**2
    assert relative(scaled, kernel_matrix(NET, (image / least)[..., None], channel_axis=-1)) <= 1e-5


def test_a_flat_image_less_its_mean_is_zero():
    """The mean's rounding is no picture."""
    flat = np.full((5, 7, 2), [1e-10, 0.3])
    assert not without_mean(flat).any()
    flat[2, 3, 0] = 2e-10
    assert without_mean(flat)[..., 0].any()
    assert not without_mean(flat)[..., 1].any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "gpu"}, ValueError, r"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        ({"device": "cuda:"}, ValueError, r"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'cuda:'"),
        ({"device": "cuda:-1"}, ValueError, r"device must be .*got 'cuda:-1'"),
        ({"device": 0}, TypeError, r"device must be .*got 0"),
        ({"storage": "sparse"}, ValueError, r"storage must be one of \('auto', 'stream', 'coarse', 'dense'\), got 's"),
        ({"storage": True}, TypeError, r"storage must be one of .*got True"),
        ({"dtype": "float16"}, ValueError, r"dtype must be 'float32' or 'float64', got 'float16'"),
        ({"dtype": int}, ValueError, r"dtype must be 'float32' or 'float64'"),
        ({"dtype": None}, ValueError, r"dtype must be 'float32' or 'float64', got None"),
        ({"dtype": "real"}, TypeError, r"dtype must be 'float32' or 'float64', got 'real'"),
        ({"threads": 0}, ValueError, r"threads must be at least 1, got 0"),
        ({"threads": -1}, ValueError, r"threads must be at least 1, got -1"),
        ({"threads": 1.5}, TypeError, r"threads must be an integer, got 1.5"),
        ({"threads": "2"}, TypeError, r"threads must be an integer, got '2'"),
        ({"threads": True}, TypeError, r"threads must be an integer, got True"),
        ({"progress": 3}, TypeError, r"progress must be callable, got 3"),
    ],
    ids=str,
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        NTK(NET, X, **options)


@pytest.mark.parametrize("axis", [3, -4, 100])
def test_channel_axis_out_of_range(axis):
    with pytest.raises(ValueError, match=rf"channel_axis must lie between -3 and 2, got {axis}"):
        NTK(NET, np.ones((4, 5, 3)), channel_axis=axis)


@pytest.mark.parametrize("axis", [1.0, "2", True])
def test_channel_axis_of_the_wrong_kind(axis):
    with pytest.raises(TypeError, match=r"channel_axis must be an integer"):
        NTK(NET, np.ones((4, 5, 3)), channel_axis=axis)
    with pytest.raises(TypeError, match=r"channel_axis must be an integer"):
        NTK(NET, np.ones((4, 5)), channel_axis=axis)


@pytest.mark.parametrize("network", [None, "vanilla", [Conv(3), ReLU(), Conv(1)], Conv(3), Network])
def test_networks_only(network):
    with pytest.raises(TypeError, match=r"network must be an ntkfast\.Network, got "):
        NTK(network, X)


def test_a_frozen_network_has_a_covariance_but_no_tangent_kernel():
    net = Network([Conv(3, trainable=False), ReLU(), Conv(1, trainable=False)])
    image = noise(4, 5, 1, 0)
    with pytest.raises(ValueError, match=r"network must have a trainable Conv for an NTK"):
        NTK(net, image, channel_axis=-1)
    K = NNGP(net, image, dtype="float64", channel_axis=-1)
    assert relative(K.dense(), kernel_matrix(net, image, "nngp", channel_axis=-1)) <= 1e-12


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([20], ValueError, r"indices must lie between 0 and 19, got 20 to 20"),
        ([3, -1], ValueError, r"indices must lie between 0 and 19, got -1 to 3"),
        (np.array([2**63], np.uint64), ValueError, r"indices must lie between 0 and 19"),
        ([1.0], TypeError, r"indices must be a 1-D sequence of integers"),
        (3, TypeError, r"indices must be a 1-D sequence of integers, got 3"),
        ([[1], [1, 2]], TypeError, r"indices must be a 1-D sequence of integers"),
        ([[1]], TypeError, r"indices must be a 1-D sequence of integers"),
        ([True], TypeError, r"indices must be a 1-D sequence of integers"),
        (["1"], TypeError, r"indices must be a 1-D sequence of integers"),
        (None, TypeError, r"indices must be a 1-D sequence of integers, got None"),
    ],
    ids=repr,
)
def test_bad_indices(indices, error, message):
    with pytest.raises(error, match=message):
        NTK(NET, X).columns(indices)


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ((4, 0), ValueError, "row must lie between 0 and 3, got 4"),
        ((0, 5), ValueError, "col must lie between 0 and 4, got 5"),
        ((-1, 0), ValueError, "row must lie between 0 and 3, got -1"),
        ((0, 1.0), TypeError, "col must be an integer, got 1.0"),
        (("0", 1), TypeError, "row must be an integer, got '0'"),
    ],
)
def test_bad_places(place, error, message):
    with pytest.raises(error, match=message):
        NTK(NET, X).affinity(*place)


def test_bad_right_hand_sides():
    K = NTK(NET, X)
    wanted = r"image must have shape \(20,\) or \(20, n\), or \(4, 5\) or \(4, 5, n\), got "
    for shape in ((19,), (5, 4), (4, 5, 3, 1), (21, 2), (2, 20), (20, 1, 1)):
        with pytest.raises(ValueError, match=wanted):
            K.apply(np.ones(shape))
    with pytest.raises(ValueError, match=wanted):
        K.apply(1.0)
    with pytest.raises(ValueError, match="image must be finite"):
        K.apply(np.full(20, np.nan))
    with pytest.raises(ValueError, match="image must be finite, got 20 "):
        K.apply(np.full(20, complex(0.0, np.nan)))
    for dtype in ("M8[D]", "m8[s]", object, "U1"):
        with pytest.raises(TypeError, match="the operator applies to real and complex arrays, got dtype "):
            K @ np.zeros(20, dtype)
        with pytest.raises(TypeError, match="image must be a real numeric array, got dtype "):
            K.apply(np.zeros(20, dtype))
    with pytest.raises(ValueError, match="dimension mismatch"):
        K @ np.ones(19)


def test_unknown_instruction_set(monkeypatch):
    monkeypatch.setenv("NTKFAST_ISA", "sse9")
    with pytest.raises(ValueError, match=r"environment variable NTKFAST_ISA must be one of \['baseline'.*got 'sse9'"):
        NTK(NET, X)
    with pytest.raises(ValueError, match="NTKFAST_ISA"):
        ntkfast.info()
    monkeypatch.setenv("NTKFAST_ISA", " baseline ")
    assert ntkfast.info()["isa_active"] == "baseline"
    monkeypatch.setenv("NTKFAST_ISA", "")
    assert ntkfast.info()["isa_active"] == ntkfast.info()["isa_supported"][-1]


# --- Progress and Ctrl-C ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("side", "depth"), [(100, 5), (140, 3)])
def test_progress_rises_to_one(side, depth, threads, padding):
    seen = []
    net = vanilla_cnn(depth, 3, padding=padding)
    K = NTK(net, noise(side, side, 1, 0), storage="stream", threads=threads, progress=seen.append, channel_axis=-1)
    K @ np.ones(side * side)
    assert len(seen) > 1
    assert seen[-1] == 1
    assert all(0 <= a <= b <= 1 for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize("call", ["product", "columns", "dense"])
def test_progress_of_every_call_ends_at_one(call):
    seen = []
    K = operator(progress=seen.append)
    {"product": lambda: K @ np.ones(72), "columns": lambda: K.columns([3]), "dense": K.dense}[call]()
    assert seen[-1:] == [1]


def test_an_exception_of_the_callback_stops_the_product():
    class Enough(Exception):  # noqa: N818
        pass

    enough = Enough("seen enough")
    calls = []

    def progress(fraction):
        calls.append(fraction)
        raise enough

    K = NTK(vanilla_cnn(3, 3), noise(300, 300, 1, 0), storage="stream", progress=progress, channel_axis=-1)
    start = time.perf_counter()
    with pytest.raises(Enough) as caught:
        K @ np.ones(90000)
    assert time.perf_counter() - start < 2  # the whole product takes ten times as long
    assert caught.value is enough
    assert len(calls) == 1
    assert calls[0] < 0.5


def test_nothing_is_half_stored():
    failing = [True]

    def progress(_fraction):
        if failing[0]:
            raise KeyError("stop")

    K = operator(storage="dense", progress=progress)
    with pytest.raises(KeyError, match="stop"):
        K @ np.ones(72)
    assert not K._engine.stored
    failing[0] = False
    assert relative(K @ np.ones(72), operator() @ np.ones(72)) <= 1e-13
    assert K._engine.stored


@pytest.mark.parametrize("storage", ["dense", "coarse", "fourier"])
def test_a_callback_that_multiplies_while_the_kernel_is_kept_is_told(storage):
    """It would wait for ever for what it stops from being kept, so that this runs in a process of its own."""
    what = {
        "dense": "vanilla_cnn(1, 3), np.ones((8, 8)), storage='dense'",
        "coarse": "unet(1), np.ones((8, 8)), storage='coarse'",
        "fourier": "vanilla_cnn(1, 3, padding='circular'), NoiseInput((8, 8))",
    }[storage]
    message = run_python(f"""
        import json
        import numpy as np
        from ntkfast import NTK, NoiseInput, unet, vanilla_cnn

        K = NTK({what}, progress=lambda fraction: K @ np.ones(64))
        assert K.storage == "{storage}"
        try:
            K @ np.ones(64)
        except RuntimeError as error:
            K._progress = None
            K @ np.ones(64)  # the lock is free again
            print(json.dumps(str(error)))
    """)
    assert message.startswith("progress must not multiply with the operator that calls it")


def test_copies_share_the_engine():
    K = operator(storage="dense")
    for made in (copy.copy(K), copy.deepcopy(K), copy.deepcopy({"kernel": K})["kernel"]):
        assert type(made) is NTK
        assert made is not K
        np.testing.assert_array_equal(made @ np.ones(72), K @ np.ones(72))
        made.lambda_max = 1.0
        assert K.lambda_max is None


def require_other_threads_run(call):
    """Let another thread of Python tick while ``call`` works, which it does only if the GIL is free."""
    count, running = [0], threading.Event()

    def tick():
        while not running.wait(0.001):
            count[0] += 1

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        before, start = count[0], time.perf_counter()
        call()
        ticks, seconds = count[0] - before, time.perf_counter() - start
    finally:
        running.set()
        thread.join()
    assert seconds > 0.05, "too short to tell"
    assert ticks > 10


def test_other_threads_run_during_a_product():
    K = NTK(vanilla_cnn(3, 3), noise(110, 110, 1, 0), storage="stream", threads=1, channel_axis=-1)
    require_other_threads_run(lambda: K @ np.ones(110 * 110))


def test_two_threads_may_share_an_operator():
    K = operator(storage="dense", shape=(24, 24, 1))
    v = noise(576, 4, 1, 0)[..., 0]
    results = [None] * 4

    def product(n):
        results[n] = K @ v[:, n]

    workers = [threading.Thread(target=product, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    expected = operator(shape=(24, 24, 1)) @ v
    for n in range(4):
        assert relative(results[n], expected[:, n]) <= 1e-12


def seconds_until_stopped(setup, call, after):
    """Time ``call`` in its own process from SIGINT, sent ``after`` seconds into it, to its end; nan if over before.

    The signal comes from here: a thread over there could not send it while a call holds the GIL.
    """
    code = f"""
import time
import numpy as np
from ntkfast import NTK, unet, vanilla_cnn
from ntkfast.engine import memory
memory.available_memory = lambda: 1 << 40  # little is written before the call is stopped
image = np.random.default_rng(0).standard_normal
{setup}
print("ready", flush=True)
try:
    {call}
    print("nan", flush=True)
except KeyboardInterrupt:
    print(time.perf_counter(), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(after)
        sent = time.perf_counter()
        process.send_signal(signal.SIGINT)
        return float(process.stdout.readline()) - sent


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("setup", "call"),
    [
        ("K = NTK(vanilla_cnn(1, 5), image((700, 700)), threads=1)", "K @ np.ones(490000)"),
        ("K = NTK(vanilla_cnn(1, 5), image((700, 700)), threads=2)", "K @ np.ones(490000)"),
        ("", "NTK(unet(3), image((512, 512)))"),  # bands near D = 0
        ("x = image((2048, 2048))", "NTK(vanilla_cnn(3, 5), x)"),  # planes
        # This matrix takes 3.2 GB, which no thread must fill beforehand.
        ("K = NTK(vanilla_cnn(2, 3), image((200, 200)), storage='dense')", "K @ np.ones(200**2)"),
        # This matrix takes 1 GB, of which the first band writes into every page.
        ("K = NTK(vanilla_cnn(3, 5), image((128, 128)), storage='stream')", "K.dense()"),
        # One strip of rows takes 0.9 s here.
        ("K = NTK(vanilla_cnn(5, 11), image((700, 700)))", "K.affinity(350, 350)"),
        # The fields in double are made here.
        ("K = NTK(unet(3), image((160, 160)), storage='stream')", "K._engine.columns(np.array([9999]))"),
        # Here 64 columns become padded rows, and the threads have sums.
        ("K, V = NTK(vanilla_cnn(1, 5), image((700, 700))), np.ones((490000, 64), np.float32)", "K @ V"),
    ],
    ids=[
        "product, 1 thread", "product, 2 threads", "construction, deep", "construction, large", "store", "dense",
        "strips", "fields of columns", "many columns",
    ],
)  # fmt: skip
def test_ctrl_c_stops_within_half_a_second(setup, call):
    # A loaded machine may add to a wait, never take from it: one of three in time shows that the engine asks often.
    assert any(seconds_until_stopped(setup, call, 0.2) < 0.5 for _ in range(3))


def test_the_gil_is_free_during_construction():
    image = noise(320, 320, 1, 0)
    require_other_threads_run(lambda: NTK(unet(2), image, storage="stream", threads=1, channel_axis=-1))


# --- Threads and forks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1025, 10**5, 2**31, 10**20])
def test_too_many_threads_are_refused(threads):
    with pytest.raises(ValueError, match=f"threads must be at most 1024, got {threads}"):
        operator(threads=threads)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_computes():
    """The child has none of the threads of the parent's calls; the parent's next call makes them anew."""
    same = run_python(
        """
        import json, os, signal
        import numpy as np
        from ntkfast import NTK, vanilla_cnn

        K = NTK(vanilla_cnn(1, 3), np.random.default_rng(0).standard_normal((24, 24)), storage="stream", threads=2)
        v = np.ones(24**2, np.float32)
        expected = K @ v
        reader, writer = os.pipe()
        if os.fork() == 0:
            signal.alarm(20)  # ends it where it hangs
            with os.fdopen(writer, "wb") as file:
                file.write((K @ v).tobytes() + K.columns([5]).tobytes())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            result = file.read()
        print(json.dumps(result == expected.tobytes() + K.columns([5]).tobytes() and bool(np.all(K @ v == expected))))
        """,
        timeout=40,
    )
    assert same


# --- Import -------------------------------------------------------------------------------------------------------


def test_import_is_quick():
    # Nothing is imported before it is used: not even NumPy, and SciPy's linear operators, 0.2 s and more, with NTK.
    def seconds(code):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])  # seconds of the processor, so that a busy machine does not count

    codes = ("pass", "import ntkfast", "import numpy", "import ntkfast; ntkfast.vanilla_cnn(), ntkfast.info()")
    python, imported, numpy, used = (min(times) for times in zip(*[map(seconds, codes) for _ in range(5)], strict=True))
    assert imported - python < 0.05
    assert used - numpy < 0.15


def test_import_loads_no_heavy_package():
    loaded = run_python("import sys, json, ntkfast; print(json.dumps(list(sys.modules)))")
    assert [name for name in loaded if name.startswith("ntkfast")] == ["ntkfast"]
    assert "numpy" not in loaded
    loaded = run_python("import sys, json, ntkfast; ntkfast.NTK; print(json.dumps(list(sys.modules)))")
    heavy = {"torch", "cupy", "matplotlib", "skimage", "imagecodecs", "tifffile", "tqdm", "PIL"}
    assert not heavy & set(loaded)


def test_info_names_the_build():
    info = ntkfast.info()
    assert info["isa_active"] in info["isa_supported"]
    assert set(info["isa_supported"]) <= set(info["isa_compiled"])
    assert info["threads"] >= 1
    assert info["devices"][0] == "cpu"
    assert len(info["devices"]) == 1 + len(_core.cuda_devices())
    assert json.dumps(info)


# --- Storages of networks of several resolutions, and of noise ------------------------------------------------------


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_coarse_fields_are_kept_and_give_the_same_products(padding):
    image = np.random.default_rng(0).normal(size=(16, 24, 2))
    v = np.random.default_rng(1).normal(size=(16 * 24, 3))
    net = unet(2, padding=padding)
    stream, coarse = (NTK(net, image, storage=storage, threads=2, channel_axis=-1) for storage in ("stream", "coarse"))
    expected = stream @ v
    assert not coarse._engine.coarse_kept
    for _ in range(2):  # the second product finds the coarse fields
        np.testing.assert_allclose(coarse @ v, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        assert coarse._engine.coarse_kept
    np.testing.assert_array_equal(coarse.dense(), stream.dense())


def test_coarse_needs_several_resolutions():
    with pytest.raises(ValueError, match="storage='coarse' is for networks of several resolutions, got one"):
        NTK(vanilla_cnn(1, 3), np.ones((4, 4)), storage="coarse")


def test_a_stopped_product_keeps_no_coarse_fields():
    def stop(fraction):
        raise KeyError

    image = np.random.default_rng(0).normal(size=(64, 64))
    operator = NTK(unet(1), image, storage="coarse", progress=stop)
    with pytest.raises(KeyError):
        operator @ np.ones(64 * 64)
    assert not operator._engine.coarse_kept
    operator._progress = None
    expected = NTK(unet(1), image, storage="stream") @ np.ones(64 * 64)
    np.testing.assert_allclose(operator @ np.ones(64 * 64), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "net",
    [vanilla_cnn(2, 3, padding="circular"), unet(2, padding="circular"), autoencoder(1, padding="circular")],
    ids=["chain", "unet", "autoencoder"],
)
@pytest.mark.parametrize("kernel", ["ntk", "nngp"])
def test_noise_on_the_torus_is_a_fourier_filter(net, kernel):
    """The kernel of noise depends on j - i and on i modulo the network's multiple: products are FFT filters."""
    noise = NoiseInput((8, 12))
    operator = OPERATORS[kernel](net, noise)
    assert operator.storage == "fourier"
    theta = kernel_matrix(net, noise, kernel)
    v = np.random.default_rng(0).normal(size=(96, 3))
    scale = np.abs(theta @ v).max()
    np.testing.assert_allclose(operator @ v, theta @ v, rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(operator @ v[:, 0], theta @ v[:, 0], rtol=0, atol=1e-6 * scale)
    swept = OPERATORS[kernel](net, noise, storage="stream")
    assert swept.storage == "stream"
    # Entries are within 1e-6 of the largest; what is left of a sum with signs is smaller: 1.07e-6 of it on one thread.
    np.testing.assert_allclose(swept @ v, theta @ v, rtol=0, atol=2e-6 * scale)
    if net.multiple == 1:  # plainly stationary: one transfer function
        transfer = np.fft.fft2(theta[0].reshape(8, 12))
        filtered = np.fft.ifft2(transfer * np.fft.fft2(v[:, 0].reshape(8, 12))).real.ravel()
        np.testing.assert_allclose(operator @ v[:, 0], filtered, rtol=0, atol=1e-6 * scale)


def test_noise_without_wrapping_is_swept():
    operator = NTK(autoencoder(1), NoiseInput((8, 8)))
    assert operator.storage == "dense"
    theta = kernel_matrix(operator.network, NoiseInput((8, 8)))
    np.testing.assert_allclose(operator.dense(), theta, rtol=0, atol=1e-6 * theta.max())
