"""Each denoiser runs in a process of its own, which measures seconds of the call and memory above the import."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers import environments
from bench.resident import in_fresh_process, peak, resident

BM3D_REQUIREMENTS = ("bm3d==4.0.3", "bm4d==4.2.5", "numpy<3", "scipy<2")
BM3D_ENVIRONMENT = environments.FOLDER / "bm3d-4.0.3"
BM3D_WORKER = Path(environments.__file__).with_name("_bm3d_worker.py")


@dataclass(frozen=True)
class Options:
    """The command line sets these: threads of the methods that have them (None: their default), the prior's steps."""

    threads: int | None = None
    dip_steps: int = 3000


@dataclass(frozen=True)
class Outcome:
    """This holds a denoised picture, float (H, W, 3), what it cost, and what else the method tells for the JSON file.

    Attributes
    ----------
    seconds : float, optional
        Those of the call alone, neither the import nor the start of the process.
    peak_bytes_above_import : int, optional
        Most resident memory during the call less that after the import; the noisy picture counts.
    """

    denoised: np.ndarray
    seconds: float | None = None
    peak_bytes_above_import: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


# A Call takes (noisy, clean) to (denoised, extra). Only the deep image prior asks for the clean picture, to tell its
# best step.
Call = Callable[[np.ndarray, Callable[[], np.ndarray]], tuple[np.ndarray, dict[str, Any]]]


def non_local_means(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """Return scikit-image's fast non-local means of a picture (H, W, C)."""
    from skimage.restoration import denoise_nl_means

    setting = {"patch_size": 5, "patch_distance": 7, "h": 0.6 * sigma, "sigma": sigma}
    return denoise_nl_means(noisy, **setting, fast_mode=True, channel_axis=-1)


def _prepare_nlm(sigma: float, options: Options) -> Call:
    """Prepare non-local means, which is told sigma."""
    from skimage.restoration import denoise_nl_means  # noqa: F401 - imports are not timed

    return lambda noisy, clean: (non_local_means(noisy, sigma), {})


def _prepare_ours(sigma: float, options: Options) -> Call:
    """Prepare the denoiser as it is called by default: it estimates sigma."""
    # The denoiser imports both late, and imports are not timed.  skimage.restoration alone would import nothing yet.
    import pywt  # noqa: F401
    from skimage.restoration import estimate_sigma  # noqa: F401

    from ntkfast import Compute, denoise_ntk

    def call(noisy: np.ndarray, clean: Callable[[], np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
        denoised, info = denoise_ntk(
            noisy, channel_axis=-1, return_info=True, compute=Compute(threads=options.threads, device="cpu")
        )
        return denoised, {"sigma_estimate": info.level}

    return call


def _prepare_dip(sigma: float, options: Options) -> Call:
    """Prepare the deep image prior, which is not told sigma but stopped after a given number of steps."""
    from bench.quality.deep_image_prior import restore

    def call(noisy: np.ndarray, clean: Callable[[], np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
        return restore(noisy, steps=options.dip_steps, threads=options.threads, clean=clean())

    return call


PREPARE: dict[str, Callable[[float, Options], Call]] = {
    "nlm": _prepare_nlm,
    "ours": _prepare_ours,
    "dip": _prepare_dip,
}
METHODS = ("noisy", "nlm", "bm3d", "ours", "dip")


def _measured(method: str, folder: str, sigma: float, options: Options) -> dict[str, Any]:
    """Take noisy.npy and clean.npy of the folder to denoised.npy, in a fresh process."""
    call = PREPARE[method](sigma, options)  # imports
    before = resident()
    noisy = np.load(Path(folder, "noisy.npy"))
    start = time.perf_counter()
    denoised, extra = call(noisy, lambda: np.load(Path(folder, "clean.npy")))
    seconds = time.perf_counter() - start
    result = {"seconds": seconds, "peak_bytes_above_import": peak() - before, "extra": extra}
    np.save(Path(folder, "denoised.npy"), denoised)
    return result


def _bm3d(folder: str, sigma: float, options: Options) -> dict[str, Any]:
    """Run CBM3D with its default profile, which is told sigma; in an environment of its own."""
    interpreter = environments.make_environment(BM3D_ENVIRONMENT, sys.executable, BM3D_REQUIREMENTS)
    job = {"noisy": f"{folder}/noisy.npy", "denoised": f"{folder}/denoised.npy"}
    job |= {"sigma": sigma, "threads": options.threads}
    result = environments.run_worker("bm3d", interpreter, BM3D_WORKER, job, Path(folder))
    return {"extra": {"versions": result.pop("versions")}, **result}


def run(method: str, noisy: np.ndarray, clean: np.ndarray, sigma: float, options: Options) -> Outcome:
    """Run one method on one picture, float32 (H, W, 3), both; values 0 to 255."""
    if method == "noisy":
        return Outcome(noisy)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "noisy.npy"), noisy)
        np.save(Path(folder, "clean.npy"), clean)
        if method == "bm3d":
            result = _bm3d(folder, sigma, options)
        else:
            result = in_fresh_process(_measured, method, folder, sigma, options)
        return Outcome(np.load(Path(folder, "denoised.npy")), **result)
