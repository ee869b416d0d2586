"""These test that restoration counts its memory, and refuses what does not fit."""

import tracemalloc

import numpy as np
import pytest

import ntkfast as nf
from ntkfast.engine import memory
from ntkfast.engine.backend import Backend
from ntkfast.restoration import inverse
from ntkfast.restoration.progress import ProductsDone
from ntkfast.spectral.filters import METHODS as SOLVERS
from restoring import NETWORK, known


def wide_problem(channels):
    """Return operator, data and options for an image whose vectors are larger than what does not grow with it."""
    rng = np.random.default_rng(0)
    A = nf.Inpainting(known((48, 48)))
    image = rng.standard_normal((48, 48, channels))
    return A, image, {"guide": image, "channel_axis": -1}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_results_take_what_is_counted(solver, dtype, monkeypatch):
    A, y, options = wide_problem(3)
    asked = []
    monkeypatch.setattr(Backend, "peaks", lambda *_: {"stream": 0})  # the engine's arrays are not NumPy's

    def require(budget, what, hint, more=0):
        asked.append((what, budget.free - budget.left + more))

    monkeypatch.setattr(memory.Budget, "require", require)
    options["method"] = nf.Landweber(steps=list(range(1, 31)), solver=solver, storage="stream")
    options["compute"] = nf.Compute(dtype=dtype, threads=1)
    nf.restore_ntk(y, A, **options)
    tracemalloc.start()
    nf.restore_ntk(y, A, **options)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (counted,) = {needed for what, needed in asked if what.startswith("restoring")}
    assert 0.4 * counted <= taken <= counted


@pytest.mark.parametrize(
    ("channels", "steps", "hint"),
    [
        (3, list(range(200)), "ask for fewer steps at once"),
        (3, 7, "restore one channel at a time"),
        (1, None, "use a smaller image"),
    ],
)
def test_what_does_not_fit_is_refused_before_work(channels, steps, hint, monkeypatch):
    A, y, options = wide_problem(channels)
    options |= {"method": nf.Landweber(steps=steps, storage="stream"), "compute": nf.Compute(threads=1), "guide": None}
    monkeypatch.setattr(inverse, "first_guess", lambda *_: pytest.fail("work was begun"))
    looks = []
    monkeypatch.setattr(memory, "available_memory", lambda: looks.append(1) or 0)
    with pytest.raises(MemoryError, match=r"restoring .* needs") as error:
        nf.restore_ntk(y, A, **options)
    assert len(looks) == 1
    needed = int(str(error.value).split("(")[1].split()[0])
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    count = f"{np.size(steps)} images" if np.size(steps) > 1 else "1 image"
    with pytest.raises(MemoryError, match=rf"restoring {count} of 48 x 48 x {channels} numbers needs .*: {hint}"):
        nf.restore_ntk(y, A, **options)


def test_products_with_the_data_count_what_the_kernel_takes():
    A, y, _ = wide_problem(1)
    K = nf.NTK(NETWORK, y, channel_axis=-1, storage="stream", threads=1)
    misfit = inverse._Misfit(A, K, (48, 48), ProductsDone(None, 1))
    assert misfit.working_bytes(2) == K.working_bytes(2) + 8 * inverse.PRODUCT_VECTORS * 48**2 * 2
