"""All sizes, by scale: how large the pictures, how wide the networks, how many seeds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FollowSizes:
    """Sizes of :mod:`experiments.follow`.

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
    """Sizes of :mod:`experiments.weights`.

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
class InputsSizes:
    """Sizes of :mod:`experiments.inputs`.

    Attributes
    ----------
    side : int
        Of the square picture in pixels, a multiple of 4.  Dense matrices of side^4 numbers are taken.
    reduction : int
        How far it is averaged down.
    bins : int
        Rings of spatial frequencies.
    """

    side: int
    reduction: int
    bins: int


@dataclass(frozen=True)
class AdamSizes:
    """Sizes of :mod:`experiments.adam`.

    Attributes
    ----------
    side : int
        Of the square picture in pixels, a multiple of 4.
    reduction : int
        How far it is averaged down.
    widths : dict of str to tuple of int
        Channels of the hidden layers, by architecture.
    main_width : dict of str to int
        That one of them at which noise as input is tried, too, and the kernels are looked at more closely.
    seeds : int
        Networks of each architecture, input and width.
    most_steps : int
        Of gradient descent and of Adam.
    closed_form_steps : int
        Among which the best one of a closed form is chosen.
    probes : int
        Random vectors by which norms of kernels are estimated.
    eigenvectors : int
        Leading ones, whose span is compared with the clean picture.
    """

    side: int
    reduction: int
    widths: dict[str, tuple[int, ...]]
    main_width: dict[str, int]
    seeds: int
    most_steps: int
    closed_form_steps: int
    probes: int
    eigenvectors: int


@dataclass(frozen=True)
class TableSizes:
    """Sizes of :mod:`experiments.table`.

    Attributes
    ----------
    side : int
        Of the square pictures in pixels, a multiple of 4.
    reduction : int
        How far they are averaged down.
    pictures : int
        The first ones of the test set; 9 are all.
    widths : dict of str to int
        Channels of the hidden layers, by architecture.
    seeds : int
        Networks, and draws of the noise as input.
    most_steps : int
        Among which the best one is chosen.
    any_time_steps : int
        The same for the exact kernel without training's limit.
    landmarks : float
        Those of the Nystrom approximation as a share of the pixels.
    peers : bool
        Whether CBM3D is run.
    """

    side: int
    reduction: int
    pictures: int
    widths: dict[str, int]
    seeds: int
    most_steps: int
    any_time_steps: int
    landmarks: float
    peers: bool


@dataclass(frozen=True)
class PictureSizes:
    """Sizes of :mod:`experiments.picture`, which belongs to no scale: its picture and its minutes are the user's.

    Attributes
    ----------
    most_steps : int
        Among which the best one is chosen; trainings may end before.
    points : int
        Steps among them that are looked at.
    landmarks : int
        Those of the Nystrom approximation, or a tenth of the pixels where that is less.
    channels : int
        Those of noise as the input.
    widths : dict of str to int
        Channels of the hidden layers, by architecture.
    """

    most_steps: int
    points: int
    landmarks: int
    channels: int
    widths: dict[str, int]


OF_PICTURES = PictureSizes(
    most_steps=10_000, points=93, landmarks=1000, channels=32, widths={"vanilla": 64, "autoencoder": 32}
)


@dataclass(frozen=True)
class Scale:
    """The sizes of all experiments; each has a field of its own."""

    name: str
    follow: FollowSizes
    weights: WeightsSizes
    inputs: InputsSizes
    adam: AdamSizes
    table: TableSizes


SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            name="tiny",
            follow=FollowSizes(side=8, networks=((8, 2), (16, 2)), widest_curve=8, most_steps=30),
            weights=WeightsSizes(side=8, networks=((8, 1), (16, 1)), most_steps=64),
            inputs=InputsSizes(side=16, reduction=8, bins=6),
            adam=AdamSizes(
                side=8,
                reduction=12,
                widths={"vanilla": (8,), "autoencoder": (4, 8)},
                main_width={"vanilla": 8, "autoencoder": 8},
                seeds=1,
                most_steps=6,
                closed_form_steps=12,
                probes=2,
                eigenvectors=2,
            ),
            table=TableSizes(
                side=12,
                reduction=8,
                pictures=1,
                widths={"vanilla": 8, "autoencoder": 8, "unet": 8},
                seeds=1,
                most_steps=10,
                any_time_steps=1000,
                landmarks=0.1,
                peers=False,
            ),
        ),
        Scale(
            name="small",
            follow=FollowSizes(
                side=16,
                networks=((16, 4), (32, 4), (64, 4), (128, 4), (256, 2), (1024, 2)),
                widest_curve=256,
                most_steps=200,
            ),
            weights=WeightsSizes(side=16, networks=((16, 3), (32, 3), (64, 3), (128, 3), (256, 2)), most_steps=512),
            inputs=InputsSizes(side=32, reduction=4, bins=14),
            adam=AdamSizes(
                side=24,
                reduction=5,
                widths={"vanilla": (16, 64, 128), "autoencoder": (16, 64, 128)},
                main_width={"vanilla": 64, "autoencoder": 64},
                seeds=2,
                most_steps=200,
                closed_form_steps=5000,
                probes=8,
                eigenvectors=10,
            ),
            table=TableSizes(
                side=24,
                reduction=5,
                pictures=9,
                widths={"vanilla": 48, "autoencoder": 48, "unet": 32},
                seeds=2,
                most_steps=200,
                any_time_steps=10_000,
                landmarks=0.1,
                peers=True,
            ),
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
            inputs=InputsSizes(side=64, reduction=4, bins=24),
            adam=AdamSizes(
                side=32,
                reduction=4,
                widths={"vanilla": (16, 64, 256, 1024), "autoencoder": (16, 64, 256, 512)},
                main_width={"vanilla": 256, "autoencoder": 256},
                seeds=2,
                most_steps=400,
                closed_form_steps=10000,
                probes=16,
                eigenvectors=10,
            ),
            table=TableSizes(
                side=48,
                reduction=4,
                pictures=9,
                widths={"vanilla": 256, "autoencoder": 128, "unet": 64},
                seeds=2,
                most_steps=600,
                any_time_steps=30_000,
                landmarks=0.1,
                peers=True,
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
            inputs=InputsSizes(side=96, reduction=4, bins=32),
            adam=AdamSizes(
                side=64,
                reduction=4,
                widths={"vanilla": (32, 128, 512, 2048, 8192), "autoencoder": (32, 128, 512, 1024)},
                main_width={"vanilla": 2048, "autoencoder": 512},
                seeds=3,
                most_steps=2000,
                closed_form_steps=100000,
                probes=32,
                eigenvectors=10,
            ),
            table=TableSizes(
                side=128,
                reduction=2,
                pictures=9,
                widths={"vanilla": 512, "autoencoder": 128, "unet": 128},
                seeds=2,
                most_steps=2000,
                any_time_steps=100_000,
                landmarks=0.1,
                peers=True,
            ),
        ),
    )
}
