"""These test what is known of memory beforehand: estimates, and refusals of what does not fit."""

from __future__ import annotations

import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import ntkfast
from images import noise
from ntkfast import NTK, NoiseInput, kernel, vanilla_cnn
from ntkfast.engine import memory
from ntkfast.engine.cpu import CpuBackend
from operators import NET, Fenced, operator, relative, run_python


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
