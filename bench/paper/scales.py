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
    widths : tuple of int
        Channels of the hidden layers.
    seeds : int
        Networks of each architecture and width; the widest have fewer, see ``seeds_of_widest``.
    most_steps : int
        Bound on the steps of gradient descent.
    """

    side: int
    widths: tuple[int, ...]
    seeds: int
    most_steps: int


@dataclass(frozen=True)
class WeightsSizes:
    """Sizes of :mod:`bench.paper.weights`.

    Attributes
    ----------
    side : int
        Of the square crop in pixels, a multiple of 4.
    widths : tuple of int
        Channels of the hidden layers.
    seeds : int
        Networks of each architecture, width and optimizer.
    most_steps : int
        Bound on the steps until the loss is reached.
    """

    side: int
    widths: tuple[int, ...]
    seeds: int
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
            follow=FollowSizes(side=8, widths=(8, 16, 32), seeds=2, most_steps=30),
            weights=WeightsSizes(side=8, widths=(8, 16, 32), seeds=2, most_steps=60),
        ),
        Scale(
            name="small",
            follow=FollowSizes(side=16, widths=(16, 32, 64, 128, 256), seeds=4, most_steps=200),
            weights=WeightsSizes(side=16, widths=(16, 32, 64, 128, 256), seeds=3, most_steps=400),
        ),
        Scale(
            name="medium",
            follow=FollowSizes(side=32, widths=(16, 32, 64, 128, 256, 512, 1024), seeds=6, most_steps=400),
            weights=WeightsSizes(side=32, widths=(16, 32, 64, 128, 256, 512, 1024), seeds=4, most_steps=1000),
        ),
        Scale(
            name="full",
            follow=FollowSizes(side=64, widths=(16, 32, 64, 128, 256, 512, 1024, 2048, 4096), seeds=8, most_steps=1000),
            weights=WeightsSizes(side=64, widths=(16, 32, 64, 128, 256, 512, 1024, 2048), seeds=5, most_steps=2000),
        ),
    )
}
