"""These test that the denoiser counts its memory, makes do with little, and refuses what does not fit."""

import subprocess
import sys

import numpy as np
import pytest

import ntkfast as nf
from denoising import fail, noisy_square
from ntkfast.engine import memory
from ntkfast.engine.cpu import CpuBackend
from ntkfast.restoration import tile_filter, whole_filter


@pytest.mark.parametrize("steps", [5, None])
def test_a_tile_that_does_not_fit_is_refused_before_work(steps, monkeypatch):
    monkeypatch.setattr(CpuBackend, "make", fail)
    monkeypatch.setattr(memory, "available_memory", lambda: 2**24)
    message = r"a tile of 96 x 96 pixels, with the image, needs .* bytes\), but only 16\.0 MiB .*: use Tiles of a sma"
    with pytest.raises(MemoryError, match=message):
        nf.denoise_ntk(noisy_square(100), 0.5, channel_axis=-1, method=nf.Tiles(size=96, steps=steps))
    monkeypatch.setattr(memory, "available_memory", lambda: 10**5)
    with pytest.raises(MemoryError, match="use a smaller image"):
        nf.denoise_ntk(noisy_square(100), 0.5, channel_axis=-1, method=nf.Tiles(size=4, overlap=1, steps=steps))


def test_fewer_tiles_at_a_time_where_memory_is_short(monkeypatch):
    """The same number of them on any number of threads, so that the bits are the same."""
    image, options = noisy_square(64), {"channel_axis": -1, "method": nf.Tiles(steps=20, passes=1)}
    expected = nf.denoise_ntk(image, 0.5, compute=nf.Compute(threads=2), **options)
    batches, make = [], CpuBackend.make

    def watched(self, problem, tiles):
        batches.append(len(tiles))
        return make(self, problem, tiles)

    monkeypatch.setattr(CpuBackend, "make", watched)
    monkeypatch.setattr(memory, "available_memory", lambda: 3 * 2**22)
    one, two = (nf.denoise_ntk(image, 0.5, compute=nf.Compute(threads=threads), **options) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    assert 1 < max(batches) < 32
    assert np.abs(one - expected).max() <= 2e-3 * np.abs(expected).max()


def test_fewer_threads_where_memory_is_short(monkeypatch):
    options = {"channel_axis": -1, "method": nf.Tiles(steps=5, passes=1), "compute": nf.Compute(threads=8)}
    image = noisy_square(96)
    expected = nf.denoise_ntk(image, 0.5, **options)
    pools, Pool = [], tile_filter.ThreadPoolExecutor
    monkeypatch.setattr(tile_filter, "ThreadPoolExecutor", lambda workers: pools.append(workers) or Pool(workers))
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * 10**8)
    np.testing.assert_array_equal(nf.denoise_ntk(image, 0.5, **options), expected)
    assert set(pools) in ({2}, {3}, {4})


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_tiles_take_what_is_counted():
    code = """
import re
import numpy as np
from ntkfast import Compute, Tiles, denoise_ntk, vanilla_cnn
from ntkfast.engine.cpu import CPU
from ntkfast.restoration.image_filter import array_bytes
from ntkfast.restoration.options import CHROMA_TIME
from ntkfast.restoration.tile_filter import TileMethod, batch_bytes

def resident(name):
    return 1024 * int(re.search(name + r":\\s*(\\d+)", open("/proc/self/status").read())[1])

image = np.random.default_rng(0).standard_normal((160, 160, 1))
options = {"channel_axis": -1, "compute": Compute("cpu", threads=1)}
denoise_ntk(image[:20, :20], 0.5, method=Tiles(steps=20, passes=1), **options)  # imports
before = resident("VmRSS")
denoise_ntk(image, 0.5, method=Tiles(size=40, overlap=20, steps=20, passes=1), **options)  # 49 tiles
method = TileMethod(vanilla_cnn(1, 5), 40, 20, np.dtype("float32"), CPU, 1, CHROMA_TIME)
print(resident("VmHWM") - before, array_bytes((1, *image.shape), 1) + batch_bytes(method, (40, 40, 1), 49, 1))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    taken, counted = map(int, printed.split())
    assert 0.6 * counted <= taken <= 1.05 * counted


@pytest.mark.parametrize("steps", [5, None])
def test_a_whole_image_that_does_not_fit_is_refused_before_work(steps, monkeypatch):
    options = {"steps": steps, "passes": 1}
    with monkeypatch.context() as patch:
        patch.setattr(whole_filter, "NTK", fail)
        patch.setattr(memory, "available_memory", lambda: 10**6)
        message = (
            r"method=WholeImage\(\) on 64 x 64 pixels needs .* bytes\), but only .*: use method=Tiles\(\), or .*land"
        )
        with pytest.raises(MemoryError, match=message):
            nf.denoise_ntk(noisy_square(64), 0.5, channel_axis=-1, method=nf.WholeImage(**options))
        with pytest.raises(
            MemoryError, match=r"method=WholeImage\(landmarks=256\) on .* needs .*: use method=Tiles\(\)$"
        ):
            nf.denoise_ntk(noisy_square(64), 0.5, channel_axis=-1, method=nf.WholeImage(landmarks=256, **options))
        patch.setattr(memory, "available_memory", lambda: 5 * 10**7)
        with pytest.raises(MemoryError, match=r": landmarks = \d+ would fit") as error:
            nf.denoise_ntk(noisy_square(64), 0.5, channel_axis=-1, method=nf.WholeImage(landmarks=1000, **options))
    fits = int(str(error.value).split("landmarks = ")[1].split()[0])
    monkeypatch.setattr(memory, "available_memory", lambda: 5 * 10**7)
    nf.denoise_ntk(noisy_square(64), 0.5, channel_axis=-1, method=nf.WholeImage(landmarks=fits, **options))


@pytest.mark.parametrize(
    ("landmarks", "hint"), [(None, r"method=Tiles\(\), or WholeImage with landmarks"), (256, "landmarks = ")]
)
def test_a_refusal_in_the_middle_names_an_option_of_the_caller(landmarks, hint, monkeypatch):
    """Others may have taken memory since the first look."""
    monkeypatch.setattr(whole_filter.WholeMethod, "fitted", lambda self, *_: self)
    kernel = nf.NTK(nf.vanilla_cnn(1, 5), noisy_square(64), channel_axis=-1, threads=1)
    monkeypatch.setattr(memory, "available_memory", lambda: kernel.memory_estimate()["stream"])
    method = nf.WholeImage(landmarks=landmarks, steps=5, passes=1)
    with pytest.raises(MemoryError, match=hint):
        nf.denoise_ntk(noisy_square(64), 0.5, channel_axis=-1, method=method, compute=nf.Compute(threads=1))
