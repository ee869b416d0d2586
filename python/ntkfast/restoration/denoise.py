"""The denoiser: exact NTK filters of small overlapping tiles, stopped by a rule that needs no clean image."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal, TypeVar, overload

import numpy as np
from threadpoolctl import threadpool_limits

from .. import _check
from ..engine.program import Progress
from ..images import Layout, as_frames, as_stack
from .image_filter import Advance, ImageFilter
from .methods import METHODS
from .noise_level import noise_level
from .noise_model import NoiseModel, as_noise
from .options import Compute, Tiles, WholeImage
from .picture import Picture, white_noise
from .progress import TilesDone, share
from .stopping import RISKS, RULES

__all__ = ["DenoiseInfo", "Denoised", "Denoiser", "denoise_ntk", "rule_seed"]

RULE_STREAM = 0x6E746B  # keeps the rule's noise apart from a picture's that was made with the same small number

Image = TypeVar("Image")
Images = TypeVar("Images", bound="list[Any] | tuple[Any, ...]")
Noise = NoiseModel | Sequence[NoiseModel] | None
Random = int | np.random.Generator | None


@dataclass(frozen=True)
class DenoiseInfo:
    """This says what the denoiser did.

    Attributes
    ----------
    method : Tiles or WholeImage
        As it was used: with the network, and the size and overlap of tiles, that were taken; ``landmarks`` is None too
        where landmarks from a quarter of the pixels on were asked for.
    noise : NoiseModel
        What was given, or estimated.
    level : float
        Noise level that the filter reckoned with, in the image's units: ``strength`` times that of ``noise``; of levels
        of channels the least, to which they are scaled; of a map the level that has the mean of 1/sigma^2; of a
        :class:`PoissonGaussian`, whose variance is stabilised before, 1.
    tiles : int
        Number of tiles; 1 for the whole image.
    steps : tuple of int
        Steps of gradient descent of each pass, for the mean of the channels.
    learning_rate : tuple of float
        Step size of each pass, one over the squared units of the image.
    stopping : str
        The rule that chose the steps, "given", or "none" for a picture without noise, where steps is empty.
    passes : int
        Passes in all.
    seconds : float

    Examples
    --------
    >>> _, info = nf.denoise_ntk(np.eye(24), 0.1, method=nf.Tiles(steps=(20, 30)), return_info=True)
    >>> info.noise, info.level, info.tiles, info.steps, info.stopping
    (NoiseModel(sigma=0.1), 0.1, 9, (20, 30), 'given')
    """

    method: Tiles | WholeImage
    noise: NoiseModel
    level: float
    tiles: int
    steps: tuple[int, ...]
    learning_rate: tuple[float, ...]
    stopping: str
    passes: int
    seconds: float


@overload
def denoise_ntk(
    image: np.ndarray, sigma: Any = None, *, noise: Noise = None, channel_axis: int | None = None,
    frame_axis: int | None = None, method: Tiles | WholeImage | None = None, strength: float = 1.0,
    compute: Compute | None = None, rng: Random = 0, return_info: Literal[False] = False,
) -> np.ndarray: ...  # fmt: skip


@overload
def denoise_ntk(
    image: np.ndarray, sigma: Any = None, *, noise: Noise = None, channel_axis: int | None = None,
    frame_axis: int, method: Tiles | WholeImage | None = None, strength: float = 1.0,
    compute: Compute | None = None, rng: Random = 0, return_info: Literal[True],
) -> tuple[np.ndarray, tuple[DenoiseInfo, ...]]: ...  # fmt: skip


@overload
def denoise_ntk(
    image: np.ndarray, sigma: Any = None, *, noise: Noise = None, channel_axis: int | None = None,
    frame_axis: None = None, method: Tiles | WholeImage | None = None, strength: float = 1.0,
    compute: Compute | None = None, rng: Random = 0, return_info: Literal[True],
) -> tuple[np.ndarray, DenoiseInfo]: ...  # fmt: skip


@overload
def denoise_ntk(
    image: Image, sigma: Any = None, *, noise: Noise = None, channel_axis: int | None = None,
    frame_axis: int | None = None, method: Tiles | WholeImage | None = None, strength: float = 1.0,
    compute: Compute | None = None, rng: Random = 0, return_info: Literal[False] = False,
) -> Image: ...  # fmt: skip


@overload
def denoise_ntk(  # type: ignore[overload-overlap]  # a set is an image to the last one
    image: Images, sigma: Any = None, *, noise: Noise = None, channel_axis: int | None = None,
    frame_axis: None = None, method: Tiles | WholeImage | None = None, strength: float = 1.0,
    compute: Compute | None = None, rng: Random = 0, return_info: Literal[True],
) -> tuple[Images, tuple[DenoiseInfo, ...]]: ...  # fmt: skip


@overload
def denoise_ntk(
    image: Image, sigma: Any = None, *, noise: Noise = None, channel_axis: int | None = None,
    frame_axis: int, method: Tiles | WholeImage | None = None, strength: float = 1.0,
    compute: Compute | None = None, rng: Random = 0, return_info: Literal[True],
) -> tuple[Image, tuple[DenoiseInfo, ...]]: ...  # fmt: skip


@overload
def denoise_ntk(
    image: Image, sigma: Any = None, *, noise: Noise = None, channel_axis: int | None = None,
    frame_axis: None = None, method: Tiles | WholeImage | None = None, strength: float = 1.0,
    compute: Compute | None = None, rng: Random = 0, return_info: Literal[True],
) -> tuple[Image, DenoiseInfo]: ...  # fmt: skip


def denoise_ntk(
    image: Any,
    sigma: Any = None,
    *,
    noise: Noise = None,
    channel_axis: int | None = None,
    frame_axis: int | None = None,
    method: Tiles | WholeImage | None = None,
    strength: float = 1.0,
    compute: Compute | None = None,
    rng: Random = 0,
    return_info: bool = False,
) -> Any:
    """Denoise an image by what an infinitely wide CNN learns from it in a limited number of steps.

    The image is cut into overlapping tiles.  On each, less its mean, the network of infinite width is trained by
    gradient descent to reproduce the noisy tile from the noisy tile, in closed form, z_t = (I - (I - eta Theta)^t) y,
    with one step size eta for all tiles.  Then, in each further pass, Theta is built anew from the result and y is
    filtered again.

    Parameters
    ----------
    image : array_like, shape (H, W) or with a channel axis, real; or a list or tuple of such
        Not rescaled, not even if it is of an integer type: the result is in its units, and so is sigma.  Of a set of
        pictures each is denoised by itself.
    sigma : float or array_like of shape (C,) or (H, W), optional
        Standard deviation of the noise, >= 0; or that of each channel, or of each pixel, > 0.  By default it is
        estimated (:func:`estimate_noise`; fine texture in gray counts as noise, so give sigma if it is known).  Levels
        of channels are made one by scaling the channels, and the result is scaled back.  A map weights the training:
        see Notes.
    noise : NoiseModel, optional
        In place of sigma: what is known of the noise; of a set also a list of models, one for each picture.  With
        :class:`PoissonGaussian`, for noise that grows with the signal, the image's variance is stabilised before, and
        the unbiased inverse applied after.
    channel_axis : int, optional
        Axis of the channels; None for a gray image.  All channels share the kernel.
    frame_axis : int, optional
        Axis of the pictures, if ``image`` is an array with one more axis that holds a set of them.
    method : Tiles or WholeImage, optional
        What has a kernel of its own, the network, and when training stops; default ``Tiles()``.
    strength : float
        The filter reckons with this many times the noise level that is given or estimated, >= 0: more than 1 smooths
        more, 0 returns the picture.  It has no effect where ``method.steps`` are given.
    compute : Compute, optional
        Device, precision, threads and progress; default ``Compute()``.
    rng : int, None or numpy Generator
        The random numbers of the stopping rules: the same bits at each call for an int, fresh ones for None.
    return_info : bool
        Also return a :class:`DenoiseInfo`; of a set a tuple of them, one for each picture.

    Returns
    -------
    ndarray, or what ``image`` is
        The denoised image, or the set of them: shape of the input, float32 if the input is or is of half precision,
        else float64; and what was done if asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.
    RuntimeError
        If the device is "cuda" and there is no card, or no CUDA in this build: with what is missing.
    MemoryError
        Before any work, if a tile, or the filter of the whole image, does not fit: with the bytes needed and the option
        that would fit.  Where memory is short, fewer tiles go through the engine at a time, and fewer threads work.

    Notes
    -----
    Source of the filter: Tachella, Tang, Davies, "The Neural Tangent Link Between CNN Denoisers and Non-Local Filters",
    CVPR 2021; tiles, passes and rules are this package's.

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
    >>> clean = np.add.outer(np.arange(32.0), np.arange(32.0))
    >>> noisy = clean + 5 * np.random.default_rng(0).standard_normal(clean.shape)
    >>> denoised, info = nf.denoise_ntk(noisy, return_info=True)
    >>> bool(np.std(denoised - clean) < 0.5 * np.std(noisy - clean))
    True
    >>> info.noise  # doctest: +ELLIPSIS
    NoiseModel(sigma=..., estimated)
    >>> colour = np.stack([noisy, noisy, noisy], axis=-1)
    >>> nf.denoise_ntk(colour, 5, channel_axis=-1, method=nf.Tiles(size=12, passes=1)).shape
    (32, 32, 3)
    >>> [out.shape for out in nf.denoise_ntk([noisy, noisy[:20]], 5)]
    [(32, 32), (20, 32)]
    """
    denoiser = Denoiser.of(method, compute, strength)
    frames = as_frames("image", image, channel_axis, frame_axis)
    pictures, names, axis = ((image,), ("image",), channel_axis) if frames is None else frames.named("image")
    known = _noise_of_each(sigma, noise, None if frames is None else len(pictures))
    seeds = [rule_seed(rng) for _ in pictures]

    def opened(n: int) -> tuple[np.ndarray, Layout]:
        return as_stack(names[n], pictures[n], axis, denoiser.compute.precision, frames=frames is None)

    for n in range(len(pictures) if len(pictures) > 1 else 0):  # before work on any of them
        opened(n)
    results, infos = [], []
    for n, (model, seed) in enumerate(zip(known, seeds, strict=True)):
        pixels, layout = opened(n)
        done = denoiser.run(pixels, model, seed, share(denoiser.compute.progress, n, len(pictures)))
        results.append(layout.restored(done.pixels)[0])
        infos.append(done.info)
    if frames is None:
        return (results[0], infos[0]) if return_info else results[0]
    out = frames.restored(results)
    return (out, tuple(infos)) if return_info else out


def _noise_of_each(sigma: Any, noise: Any, count: int | None) -> list[NoiseModel | None]:
    """The arguments ``sigma`` and ``noise`` of a picture, where ``count`` is None, or of each of a set."""
    if count is None or not isinstance(noise, (list, tuple)):
        return [as_noise(sigma, noise)] * (count or 1)
    if len(noise) != count:
        raise ValueError(f"noise must be one model or {count}, one for each picture, got {len(noise)}")
    return [as_noise(sigma, model) for model in noise]


def rule_seed(rng: Any) -> list[int]:
    """The seed of the rules' random numbers, from the argument ``rng``."""
    generator = _check.generator("rng", rng)
    return [RULE_STREAM, int(rng) if isinstance(rng, Integral) else int(generator.integers(2**63))]


@dataclass(frozen=True)
class Denoised:
    """:class:`Denoiser` makes this of a picture.

    Attributes
    ----------
    pixels : ndarray, shape (1, H, W, C)
    info : DenoiseInfo
    transposed : callable
        L^T g of an image (1, H, W, C), for the linear map L that the last pass is while Theta, the steps and the scale
        of the channels are held fixed: the identity where nothing was done.  Without stabilisation ``pixels`` is L y.
    """

    pixels: np.ndarray
    info: DenoiseInfo
    transposed: Callable[[np.ndarray], np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class Denoiser:
    """How pictures are denoised: the options of :func:`denoise_ntk` that hold for all of them, checked."""

    method: Tiles | WholeImage
    compute: Compute
    strength: float

    @classmethod
    def of(cls, method: Any, compute: Any, strength: Any) -> Denoiser:
        """From the arguments of the same names."""
        return cls(
            _check.instance("method", Tiles() if method is None else method, tuple(METHODS)),
            _check.instance("compute", Compute() if compute is None else compute, (Compute,)),
            _check.not_negative("strength", strength),
        )

    def run(self, pixels: np.ndarray, noise: NoiseModel | None, seed: list[int], progress: Progress | None) -> Denoised:
        """A picture (1, H, W, C), whose noise is estimated where none is known."""
        started = time.perf_counter()
        chosen = METHODS[type(self.method)](self.method, self.compute, pixels.shape)
        noise = NoiseModel(noise_level(pixels[0]), estimated=True) if noise is None else noise
        white, steps = white_noise(noise, pixels, self.compute.precision), self.method.given_steps
        if steps is None:
            white = white.times(self.strength)
        picture = Picture(white.pixels, white.level, white.levels, chosen)
        rule = self.method.stopping if steps is None and white.level > 0 else None
        passes = self._filter(picture, rule, seed, progress)
        info = DenoiseInfo(
            method=chosen.used(self.method),
            noise=noise,
            level=white.level,
            tiles=picture.tiling.count,
            steps=tuple(passes.steps),
            learning_rate=tuple(passes.rates),
            stopping="given" if steps else rule or "none",
            passes=self.method.passes,
            seconds=time.perf_counter() - started,
        )
        last = passes.last
        if last is None:  # nothing was done: the picture to the bit
            return Denoised(pixels, info, np.asarray)

        def transposed(gradient: np.ndarray) -> np.ndarray:
            with threadpool_limits(1, user_api="blas"):
                turned = picture.transposed(last, passes.steps[-1], gradient / white.scale)
            return np.asarray(white.scale * turned)

        return Denoised(white.back(picture.image(passes.image)), info, transposed)

    def _filter(self, picture: Picture, rule: str | None, seed: list[int], progress: Progress | None) -> _Done:
        """The rule, if one is to choose the steps, and all passes."""
        trials = picture.rule_tiling() if rule in RISKS else None
        picture.fit_memory(trials)
        tiles = picture.tiling.count + (0 if trials is None else trials.count)
        done = TilesDone(progress, self.method.passes * tiles)
        # The eigenproblems of tiles are small, 36 x 36 or so: on a busy machine BLAS threads make them many times
        # slower.
        with threadpool_limits(1, user_api="blas"):
            times = [] if rule is None else RULES[rule](picture.crops(seed), self.method.passes, done.add)
            filtered = _passes(picture, self.method.given_steps, times, done.add)
        done.finish()
        return filtered


@dataclass(frozen=True)
class _Done:
    """The passes made this: the last image, mixed and padded, its filter, and the steps and step size of each pass."""

    image: np.ndarray
    last: ImageFilter | None
    steps: list[int]
    rates: list[float]


def _passes(picture: Picture, given: Sequence[int] | None, times: list[float], advance: Advance) -> _Done:
    """All passes, each for the given number of steps or to the rule's time.

    Without either, as for an image without noise, there is nothing to do.
    """
    run: ImageFilter | None = None
    image, steps, rates = picture.pixels, [], []
    for n in range(len(given or times)):
        run = picture.filter(image)
        steps.append(given[n] if given else run.steps(times[n]))
        rates.append(run.learning_rate)
        image = run.path(steps[-1:], advance)[0]
    return _Done(image, run, steps, rates)
