"""The denoiser: exact NTK filters of small overlapping tiles, stopped by a rule that needs no clean image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from .. import _check
from .._choices import REFINE, TILE_SIZE
from ..engine.program import Progress
from ..images import as_stack
from ..network import Network
from .image_filter import Advance
from .methods import METHODS
from .options import CHROMA_TIME, LANDMARKS, Areas, Compute, Training
from .picture import Picture, noise_levels
from .progress import TilesDone
from .stabilize import PoissonGaussian
from .stopping import RISKS, RULES

__all__ = ["DenoiseInfo", "denoise_ntk"]


@dataclass(frozen=True)
class DenoiseInfo:
    """What the denoiser did.

    Attributes
    ----------
    method : str
        "exact" too where "nystrom" was asked for with landmarks from a quarter of the pixels on.
    sigma : float
        Noise level, in the image's units; of a map the level that has the mean of 1/sigma^2, and 1 with ``gain``, where
        the image is denoised after its variance is stabilised.
    sigma_estimated : bool
        Whether it was estimated.
    network : Network
    tiles, tile_size, tile_overlap : int
        Number of tiles, their side and the overlap of neighbours in pixels.
    steps : tuple of int
        Steps of gradient descent of each pass, for the mean of the channels.
    learning_rate : tuple of float
        Step size of each pass, one over the squared units of the image.
    stopping : str
        The rule that chose the steps, "given", or "none" for a picture without noise, where steps is empty.
    refine : int
        Passes after the first.
    seconds : float
    """

    method: str
    sigma: float
    sigma_estimated: bool
    network: Network
    tiles: int
    tile_size: int
    tile_overlap: int
    steps: tuple[int, ...]
    learning_rate: tuple[float, ...]
    stopping: str
    refine: int
    seconds: float


def denoise_ntk(
    image: Any,
    sigma: Any = None,
    *,
    channel_axis: int | None = None,
    network: Network | None = None,
    method: str = "tiles",
    steps: int | Sequence[int] | None = None,
    stopping: str = "sure",
    tile_size: int = TILE_SIZE,
    tile_overlap: int | None = None,
    refine: int = REFINE,
    landmarks: int = LANDMARKS,
    chroma_time: float = CHROMA_TIME,
    gain: float | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: Any = "float32",
    threads: int | None = None,
    progress: Progress | None = None,
    full_output: bool = False,
) -> Any:
    """Denoise an image by what an infinitely wide CNN learns from it in a limited number of steps.

    The image is cut into overlapping tiles.  On each, less its mean, the network of infinite width is trained by
    gradient descent to reproduce the noisy tile from the noisy tile, in closed form, z_t = (I - (I - eta Theta)^t) y,
    with one step size eta for all tiles.  Then, ``refine`` times, Theta is built anew from the result and y is filtered
    again.

    Parameters
    ----------
    image : array_like, shape (H, W) or with a channel axis, real
        Not rescaled, not even if it is of an integer type: the result is in its units, and so is sigma.
    sigma : float or array_like of shape (H, W), optional
        Standard deviation of the noise, >= 0, or that of each pixel, > 0; by default estimated, from the covariance of
        patches (:mod:`ntkfast.restoration.noise_level`; fine texture in gray counts as noise, so give sigma if it is
        known).  A map weights the training: see Notes.
    channel_axis : int, optional
        Axis of the channels; None for a gray image.  All channels share the kernel.
    network : Network, optional
        Default ``vanilla_cnn(1, 5)``.
    method : {"tiles", "exact", "nystrom"}
        "exact" takes the whole image for one tile, with the exact kernel: many minutes on a large image, and without
        the locality of tiles.  "nystrom" does so with the low-rank kernel of :func:`ntkfast.nystrom`, which pays where
        the landmarks are a few percent of the pixels or fewer.
    steps : int or sequence of int, optional
        Steps of gradient descent, for every pass or for each of the 1 + refine passes.  By default chosen by
        ``stopping``, for which sigma is needed; otherwise only a map of sigma matters.
    stopping : {"sure", "recorrupted", "held_out", "calibrated"}
        Rule that chooses the steps: Notes.  "calibrated" takes no time, but is right only for photographs, with the
        default network and tiles.
    tile_size, tile_overlap : int
        Side of the tiles and overlap of neighbours, in pixels; the overlap is min(10, tile_size - 1) by default.  For
        a network of several resolutions the side is rounded up to a multiple of ``network.multiple``, and an image
        smaller than a tile is mirrored up to one.
    refine : int
        Passes after the first, each with the kernel of the result so far.
    landmarks : int
        Of "nystrom".  Time grows with their square; from a quarter of the image's pixels on the exact kernel, which is
        faster then, takes their place.
    chroma_time : float
        Training time of the differences between the channels, relative to that of their mean, > 0: colours are smoother
        than brightness, and are trained for less time.
    gain : float, optional
        For noise that depends on the signal, of variance ``gain * mean + sigma**2`` (Poisson and Gaussian; sigma is 0
        by default then): the image's variance is stabilised before, and the unbiased inverse applied after.
    seed : int
        Seed of the noise that the stopping rules add.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where the kernels of the tiles are computed.  The CPU takes many tiles at a time, a card one after the other:
        it gains with large tiles, and "auto" judges by the size of one.
    dtype : {"float32", "float64"}
        Type of the engine's arithmetic.
    threads : int, optional
        Threads, 1024 at most; by default all cores, or OMP_NUM_THREADS.
    progress : callable, optional
        Called with the fraction done, 0 to 1.
    full_output : bool
        Also return a :class:`DenoiseInfo`.

    Returns
    -------
    ndarray
        The denoised image: shape of the input, float32 if the input is or is of half precision, else float64; and the
        DenoiseInfo if asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.
    RuntimeError
        If device is "cuda" and there is no card, or no CUDA in this build: with what is missing.
    MemoryError
        Before any work, if a tile, or the filter of the whole image, does not fit: with the bytes needed and the option
        that would fit.  Where memory is short, fewer tiles go through the engine at a time, and fewer threads work.

    Notes
    -----
    Rules: "sure" estimates the risk by Stein's formula with the divergence of the whole pipeline, Theta included: with
    Theta held fixed it fails, since Theta is built from the same noise.  "recorrupted": with fresh noise n of level
    sigma, y + a n and y - n/a have independent noise, so that the time which minimises
    |f_t(Theta(y + a n)) (y + a n) - (y - n/a)|^2 is, up to a constant, the one that minimises the true error of the
    whole pipeline at a noise level larger by sqrt(1 + a^2) (Pang et al., "Recorrupted-to-Recorrupted", CVPR 2021).
    "held_out" predicts pixels that were replaced by their neighbours.  "calibrated" takes times known beforehand,
    kappa/sigma^2 with a power of sigma over the image's contrast.  tools/tuning/README.md has what each loses.

    Noise map: gradient descent on the squared residuals over their variances, sum_p (z(p) - y(p))^2/sigma(p)^2.  Levels
    count as a tenth to ten times their median: dead pixels get any large one.  Pixels of more than twice the level of
    their neighbourhood are replaced by its weighted mean in what Theta of the first pass is built from.

    Examples
    --------
    >>> denoised = denoise_ntk(noisy, channel_axis=-1)                      # doctest: +SKIP
    """
    started = time.perf_counter()
    compute = Compute.of(device, dtype, threads)
    pixels, layout = as_stack("image", image, channel_axis, compute.dtype)
    training = Training.of(network, chroma_time, refine, steps, stopping, seed)
    make = METHODS[_check.choice("method", method, tuple(METHODS))]
    chosen = make(Areas.of(tile_size, tile_overlap, landmarks), training, compute, pixels.shape)
    stabilizer = None if gain is None else _stabilizer(gain, sigma)
    if stabilizer is not None:
        pixels, sigma = stabilizer.stabilize(pixels), 1.0
    level, levels, estimated = noise_levels(sigma, pixels, compute.dtype)
    picture = Picture(pixels, level, levels, chosen)
    rule = training.rule if training.steps is None and level > 0 else None
    mixed, taken, rates = _run(picture, training, rule, progress)
    result = picture.image(mixed) if taken else pixels  # to the bit, if nothing was done
    out = layout.restored(result if stabilizer is None else stabilizer.invert(result))[0]
    if not full_output:
        return out
    return out, DenoiseInfo(
        method=chosen.name,
        sigma=level,
        sigma_estimated=estimated,
        network=chosen.network,
        tiles=picture.tiling.count,
        tile_size=chosen.size,
        tile_overlap=chosen.overlap,
        steps=tuple(taken),
        learning_rate=tuple(rates),
        stopping="given" if training.steps else rule or "none",
        refine=training.passes - 1,
        seconds=time.perf_counter() - started,
    )


def _run(
    picture: Picture, training: Training, rule: str | None, progress: Progress | None
) -> tuple[np.ndarray, list[int], list[float]]:
    """The rule, if one is to choose the steps, and all passes: see :func:`_filter`."""
    trials = picture.rule_tiling() if rule in RISKS else None
    picture.fit_memory(trials)
    tiles = picture.tiling.count + (0 if trials is None else trials.count)
    done = TilesDone(progress, training.passes * tiles)
    # The eigenproblems of tiles are small, 36 x 36 or so: on a busy machine BLAS threads make them many times slower.
    with threadpool_limits(1, user_api="blas"):
        times = [] if rule is None else RULES[rule](picture.crops(training.seed), training.passes, done.add)
        filtered = _filter(picture, training.steps, times, done.add)
    done.finish()
    return filtered


def _filter(
    picture: Picture, given: list[int] | None, times: list[float], advance: Advance
) -> tuple[np.ndarray, list[int], list[float]]:
    """All passes, each for the given number of steps or to the rule's time: the last image, steps, learning rates.

    Without either, as for an image without noise, there is nothing to do.
    """
    image, taken, rates = picture.pixels, [], []
    for n in range(len(given or times)):
        run = picture.filter(image)
        count = given[n] if given else run.steps(times[n])
        image = run.path([count], advance)[0]
        taken.append(count)
        rates.append(run.learning_rate)
    return image, taken, rates


def _stabilizer(gain: Any, sigma: Any) -> PoissonGaussian:
    if sigma is not None and np.ndim(sigma) > 0:
        raise ValueError(f"sigma must be one number if gain is given, got shape {np.shape(sigma)}")
    return PoissonGaussian(gain, 0.0 if sigma is None else _check.real("sigma", sigma))
