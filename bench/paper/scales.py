"""All sizes, by scale: how large the pictures, how wide the networks, how many seeds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FollowSizes:
    """Sizes of :mod:`bench.paper.follow`.

    Attributes
    ----------
    side : int
        Of the square crop in pixels, a multiple of 4.
    networks : tuple of (int, int)
        Widths, channels of the hidden layers, and the number of networks of each architecture that have it.
    widest_curve : int
        Up to this width training goes on beyond the best step, for the curves of the PSNR.
    most_steps : int
        Bound on the steps of gradient descent.
    """

    side: int
    networks: tuple[tuple[int, int], ...]
    widest_curve: int
    most_steps: int


@dataclass(frozen=True)
class WeightsSizes:
    """Sizes of :mod:`bench.paper.weights`.

    Attributes
    ----------
    side : int
        Of the square crop in pixels, a multiple of 4.
    networks : tuple of (int, int)
        Widths, channels of the hidden layers, and the number of networks that have it with each architecture and
        optimizer.
    most_steps : int
        Bound on the steps until the loss is reached; at least those that all widths are compared at.
    """

    side: int
    networks: tuple[tuple[int, int], ...]
    most_steps: int


@dataclass(frozen=True)
class Scale:
    """The sizes of all experiments; each has a field of its own."""

    name: str
    follow: FollowSizes
    weights: WeightsSizes


SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            name="tiny",
            follow=FollowSizes(side=8, networks=((8, 2), (16, 2)), widest_curve=8, most_steps=30),
            weights=WeightsSizes(side=8, networks=((8, 1), (16, 1)), most_steps=64),
        ),
        Scale(
            name="small",
            follow=FollowSizes(
                side=16,
                networks=((16, 4), (32, 4), (64, 4), (128, 4), (256, 2), (1024, 1)),
                widest_curve=256,
                most_steps=200,
            ),
            weights=WeightsSizes(side=16, networks=((16, 3), (32, 3), (64, 3), (128, 3), (256, 2)), most_steps=512),
        ),
        Scale(
            name="medium",
            follow=FollowSizes(
                side=32,
                networks=((16, 8), (32, 8), (64, 8), (128, 8), (256, 6), (512, 4), (1024, 3)),
                widest_curve=512,
                most_steps=400,
            ),
            weights=WeightsSizes(
                side=32,
                networks=((16, 6), (32, 6), (64, 6), (128, 6), (256, 4), (512, 2), (1024, 1)),
                most_steps=1024,
            ),
        ),
        Scale(
            name="full",
            follow=FollowSizes(
                side=64,
                networks=(*((width, 8) for width in (16, 32, 64, 128, 256, 512, 1024)), (2048, 4), (4096, 3)),
                widest_curve=1024,
                most_steps=1000,
            ),
            weights=WeightsSizes(
                side=64,
                networks=(*((width, 6) for width in (16, 32, 64, 128, 256, 512)), (1024, 4), (2048, 3), (4096, 2)),
                most_steps=4096,
            ),
        ),
    )
}
