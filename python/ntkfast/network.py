"""Networks are data here: the one description that every execution (NumPy, C++, CUDA and PyTorch) reads.

A :class:`Network` is a tuple of layers, nested where it branches (:class:`Skip`).  It holds no weights: the kernel is
that of the limit of infinite width, where only the architecture and the variances of the weights matter.
:meth:`Network.graph` is the same network as a flat list of nodes, and every execution walks that list.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from . import _check
from ._choices import PADDINGS
from .activations import Activation, Described, Rectifier, ReLU

__all__ = [
    "AvgPool",
    "Conv",
    "Identity",
    "Network",
    "Skip",
    "Upsample",
    "autoencoder",
    "unet",
    "vanilla_cnn",
]

MODES = ("bilinear", "nearest")
MERGES = ("concat", "add")


@dataclass(frozen=True, repr=False)
class Conv(Described):
    """Convolve with a square kernel, in the NTK parametrisation ``a = sqrt(w/(c k^2)) W * h + sqrt(b) beta``.

    Parameters
    ----------
    kernel_size : int
        Side k of the kernel in pixels; odd and at least 1.
    stride : {1, 2}
        2 halves the resolution: output pixel i is the one that stride 1 has at 2i.
    weight_var : float
        Weight variance w > 0.  The default, 2, keeps the energy of a ReLU network constant over depth (He).
    bias_var : float
        Bias variance b >= 0, in squared units of the image.
    trainable : bool
        A frozen convolution (``False``) transports the tangent kernel but does not add to it.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> nf.Conv(5, bias_var=0.1)
    Conv(5, bias_var=0.1)
    >>> nf.Network([nf.Conv(5), nf.ReLU(), nf.Conv(3)]).receptive_field
    7
    """

    kernel_size: int
    stride: int = field(default=1, kw_only=True)
    weight_var: float = field(default=2.0, kw_only=True)
    bias_var: float = field(default=0.0, kw_only=True)
    trainable: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        k = _check.integer("kernel_size", self.kernel_size)
        if k < 1 or k % 2 == 0:
            raise ValueError(f"kernel_size must be an odd integer >= 1, got {k}")
        stride = _check.integer("stride", self.stride)
        if stride not in (1, 2):
            raise ValueError(f"stride must be 1 or 2, got {stride}")
        w, b = _check.real("weight_var", self.weight_var), _check.real("bias_var", self.bias_var)
        if w <= 0:
            raise ValueError(f"weight_var must be positive, got {w!r}")
        if b < 0:
            raise ValueError(f"bias_var must be >= 0, got {b!r}")
        if not isinstance(self.trainable, bool):
            raise TypeError(f"trainable must be True or False, got {self.trainable!r}")
        object.__setattr__(self, "kernel_size", k)
        object.__setattr__(self, "stride", stride)
        object.__setattr__(self, "weight_var", w)
        object.__setattr__(self, "bias_var", b)

    @property
    def radius(self) -> int:
        """Return half the kernel, k // 2, in pixels."""
        return self.kernel_size // 2


def _factor(value: Any) -> int:
    number = _check.integer("factor", value)
    if number != 2:
        raise ValueError(f"factor must be 2 (use two layers for 4), got {number}")
    return number


@dataclass(frozen=True, repr=False)
class AvgPool(Described):
    """Average cells of 2x2 pixels, which halves the resolution.

    Parameters
    ----------
    factor : int
        Side of a cell; only 2.  Use two layers for 4.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> nf.Network([nf.Conv(3), nf.ReLU(), nf.AvgPool(), nf.Upsample(), nf.Conv(1)]).multiple
    2
    """

    factor: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", _factor(self.factor))


@dataclass(frozen=True, repr=False)
class Upsample(Described):
    """Double the resolution.

    Parameters
    ----------
    factor : int
        Only 2.  Use two layers for 4.
    mode : {"bilinear", "nearest"}
        "nearest" repeats each pixel 2x2 times.  "bilinear" is, along either axis,
        ``out[2a] = 3/4 in[a] + 1/4 in[a-1]`` and ``out[2a+1] = 3/4 in[a] + 1/4 in[a+1]``, as PyTorch has it with
        ``align_corners=False``.

    Notes
    -----
    Beyond the border, "bilinear" takes the border's own pixel (as PyTorch does) in a network with ``padding="zeros"``,
    so that every output pixel is a mean.  With ``padding="circular"`` the index wraps, which PyTorch does not do: so
    the network moves with its input wherever that is shifted by multiples of ``Network.multiple``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> net = nf.Network([nf.Conv(3, stride=2), nf.ReLU(), nf.Upsample(mode="nearest"), nf.Conv(1)])
    >>> net.levels, net.multiple
    (1, 2)
    """

    factor: int = 2
    mode: str = field(default="bilinear", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", _factor(self.factor))
        _check.choice("mode", self.mode, MODES)

    def reads(self, pixel: int) -> list[tuple[int, float]]:
        """Return the input pixels, ascending, that make an output pixel along an axis without borders, with weights.

        Examples
        --------
        >>> nf.Upsample().reads(4)
        [(1, 0.25), (2, 0.75)]
        >>> nf.Upsample(mode="nearest").reads(4)
        [(2, 1.0)]
        """
        if self.mode == "nearest":
            return [(pixel // self.factor, 1.0)]
        # The middle of output pixel i lies at x = (i + 1/2) / factor - 1/2 between the middles of floor x and the next.
        below, rest = divmod(2 * pixel + 1 - self.factor, 2 * self.factor)
        weight = rest / (2 * self.factor)
        return [(below, 1 - weight), (below + 1, weight)]


@dataclass(frozen=True, repr=False)
class Identity(Described):
    """Does nothing, and leaves no node in the graph.

    Examples
    --------
    >>> len(nf.Network([nf.Conv(3), nf.Identity()] + [nf.Conv(1)]).graph())  # the input and two convolutions
    3
    """


DEFAULT_SHARE = 0.5


@dataclass(frozen=True, repr=False)
class Skip(Described):
    """Merge two paths from the same features h: ``merge(shortcut(h), branch(h))``.

    Parameters
    ----------
    layers : iterable of layers
        The branch; at least one layer.
    merge : {"concat", "add"}
        Channels side by side, or the sum.
    share : float
        The branch's share of the channels of a concat, 0 < share < 1.  Only for ``merge="concat"``.
    shortcut : iterable of layers
        The other path; empty is the identity.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.  What depends on the place in the network is checked by
        :class:`Network`.

    Notes
    -----
    With a the features of the shortcut and b those of the branch, c counting channels, i and j pixels, and means over
    the channels, which in the limit of infinite width are expectations:

    **concat.**  ``Q = (1-share) Q_a + share Q_b``, the same for T'.  This holds however a and b depend on each other:
    the convolution that follows gives every channel a weight of its own, independent and of mean zero, so that no
    product of two channels is left.  But its channels have two different covariances, and their mean is not the
    covariance of any of them: an activation cannot follow (use it inside the paths), nor does it stay Gaussian.

    **add.**  ``Q_(a+b) = Q_a + Q_b + E[a_c(i) b_c(j)] + E[b_c(i) a_c(j)]``.  The closed form is the sum of the first
    two, so the cross terms must vanish.  They do if the paths are independent and one of them has mean zero:

    - *Independent.*  Where every route from h to b passes a Conv, b_c is a function of ``u_c = sum_c' W_cc' g_c'``
      with weights W_c that nothing else uses, and g made of h.  Given all that lies upstream, the u_c are independent
      Gaussians with the covariance ``w/k^2 box(mean_c' g_c' g_c') + b``, which no longer depends on the weights
      upstream: so u_c is independent of h_c, although u and h share those weights.  What a adds to h_c are
      convolutions with other weights.  One such path is therefore enough.  If both paths have a route without Conv (of
      activations, pools, identities of nested skips), then a_c and b_c are both functions of the same h_c.
    - *Mean zero.*  Then ``E[a_c b_c] = E[a_c] E[b_c]``: one factor must be 0.  The output of a Conv has mean zero;
      odd activations keep it, such as Erf, Sin and a LeakyReLU of slope 1, and so do the linear maps; a concat or a
      sum has it if both parts do.  The other activations lose it.
    - *Tangent kernel.*  Its cross term ``<grad a_c(i), grad b_c(j)>`` vanishes by the independence alone.  Weights
      inside one path do not move the other.  Weights upstream move both, through h: with b as above, the term is a sum
      over c' of ``W_cc'/sqrt(n) <grad a_c, grad g_c'>`` for n channels.  There ``<grad h_c, grad h_c'>`` is T' for
      c = c', a single term, of order n^-1/2, and of order n^-1/2 with random signs elsewhere.  If a also passes a
      Conv, the sum over c', c'' of ``V_cc' W_cc''/n <grad g_c', grad g_c''>`` has the mean zero in V and in W, up to
      their correlation with the slopes of the activations that follow, which is of order 1/n in all.
    - *Not the image.*  The image has C channels, the other path has infinitely many: they cannot be added.

    Examples
    --------
    >>> half = [nf.AvgPool(), nf.Conv(3), nf.ReLU(), nf.Upsample()]
    >>> nf.Network([nf.Conv(3), nf.ReLU(), nf.Skip(half, share=0.25), nf.Conv(3)]).levels
    1
    >>> residual = nf.Skip([nf.ReLU(), nf.Conv(3)], merge="add")
    >>> nf.Network([nf.Conv(3), residual, nf.ReLU(), nf.Conv(1)]).depth
    2
    """

    layers: tuple[Layer, ...]
    merge: str = field(default="concat", kw_only=True)
    share: float = field(default=DEFAULT_SHARE, kw_only=True)
    shortcut: tuple[Layer, ...] = field(default=(), kw_only=True)

    def __init__(
        self,
        layers: Iterable[Layer],
        *,
        merge: str = "concat",
        share: float = DEFAULT_SHARE,
        shortcut: Iterable[Layer] = (),
    ) -> None:
        branch = _as_layers("layers", layers)
        if not branch:
            raise ValueError("layers of a Skip must hold at least one layer, got none")
        share = _check.real("share", share)
        if not 0 < share < 1:
            raise ValueError(f"share must lie strictly between 0 and 1, got {share!r}")
        if _check.choice("merge", merge, MERGES) == "add" and share != DEFAULT_SHARE:
            raise ValueError(f"share is the share of a concat and must be left out with merge='add', got {share!r}")
        object.__setattr__(self, "layers", branch)
        object.__setattr__(self, "merge", merge)
        object.__setattr__(self, "share", share)
        object.__setattr__(self, "shortcut", _as_layers("shortcut", shortcut))


Layer = Conv | Activation | AvgPool | Upsample | Identity | Skip


def _as_layers(name: str, layers: Any) -> tuple[Layer, ...]:
    """Return ``layers`` as a tuple of layers, or raise naming the argument and the place in it."""
    if isinstance(layers, (str, bytes)) or not isinstance(layers, Iterable):
        raise TypeError(f"{name} must be a sequence of layers, got {layers!r}")
    checked: tuple[Layer, ...] = tuple(layers)
    for n, layer in enumerate(checked):
        if not isinstance(layer, Layer):
            hint = " (write it with parentheses)" if isinstance(layer, type) else ""
            raise TypeError(
                f"{name}[{n}] must be a Conv, AvgPool, Upsample, Identity, Skip or an activation, got {layer!r}{hint}"
            )
    return checked


# --- The graph ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Input:
    """The image is node 0 of every graph."""


@dataclass(frozen=True)
class Concat:
    """Put channels of two nodes side by side, with their shares of the channels; the shares add up to 1."""

    shares: tuple[float, float]


@dataclass(frozen=True)
class Add:
    """Add two nodes that are independent, one of them of mean zero."""


@dataclass(frozen=True)
class Node:
    """A node is one step of a network.

    Attributes
    ----------
    layer
        What is done: :class:`Input`, a :class:`Conv`, an activation, :class:`AvgPool`, :class:`Upsample`,
        :class:`Concat` or :class:`Add`.
    inputs : tuple of int
        Indices of the nodes that it takes, all of them earlier in the graph; (shortcut, branch) for a merge.
    level : int
        Changes to a coarser resolution at its output, less those to a finer one.
    scale : int
        Side in pixels of the image of one pixel at its output: the product of their factors.
    """

    layer: Input | Conv | Activation | AvgPool | Upsample | Concat | Add
    inputs: tuple[int, ...]
    level: int
    scale: int


class _Graph:
    """This flattens nested layers into nodes, and checks on the way that every closed form holds."""

    def __init__(self) -> None:
        self.nodes = [Node(Input(), (), 0, 1)]
        self.gaussian = [False]  # Are the channels independent Gaussians of mean zero with one covariance?
        self.centred = [False]  # Has every channel the mean zero?

    def append(self, node: Node, *, gaussian: bool, centred: bool) -> int:
        self.nodes.append(node)
        self.gaussian.append(gaussian)
        self.centred.append(centred)
        return len(self.nodes) - 1

    def path(self, layers: tuple[Layer, ...], at: int, place: str) -> int:
        """Append ``layers`` after the node ``at``; return the node they end with."""
        for n, layer in enumerate(layers):
            at = self.layer(layer, at, f"{place}[{n}]")
        return at

    def layer(self, layer: Layer, at: int, place: str) -> int:
        if isinstance(layer, Identity):
            return at
        if isinstance(layer, Skip):
            return self.skip(layer, at, place)
        level, scale = self.nodes[at].level, self.nodes[at].scale
        if isinstance(layer, Activation):
            self.check_gaussian(layer, at, place)
            centred = self.centred[at] and layer.is_odd()
            return self.append(Node(layer, (at,), level, scale), gaussian=False, centred=centred)
        if isinstance(layer, Conv):
            coarser = Node(layer, (at,), level + (layer.stride > 1), scale * layer.stride)
            return self.append(coarser, gaussian=True, centred=True)
        kept = {"gaussian": self.gaussian[at], "centred": self.centred[at]}
        if isinstance(layer, AvgPool):
            return self.append(Node(layer, (at,), level + 1, scale * layer.factor), **kept)
        if scale % layer.factor:
            raise ValueError(
                f"{place}, {layer!r}, must follow an AvgPool or a Conv of stride 2 that it undoes, got features at the "
                "resolution of the image (level 0) before it: no layer can be finer than the image"
            )
        return self.append(Node(layer, (at,), level - 1, scale // layer.factor), **kept)

    def skip(self, skip: Skip, at: int, place: str) -> int:
        ends = self.path(skip.shortcut, at, f"{place}.shortcut"), self.path(skip.layers, at, f"{place}.layers")
        first, second = (self.nodes[end] for end in ends)
        if first.scale != second.scale:
            raise ValueError(
                f"{place}: shortcut and layers of a Skip must end at the same resolution, "
                f"got level {first.level} and level {second.level} (halvings of the image)"
            )
        centred = all(self.centred[end] for end in ends)
        if skip.merge == "concat":
            shares = (1 - skip.share, skip.share)
            return self.append(Node(Concat(shares), ends, first.level, first.scale), gaussian=False, centred=centred)
        self.check_add(at, ends, place)
        gaussian = all(self.gaussian[end] for end in ends)
        return self.append(Node(Add(), ends, first.level, first.scale), gaussian=gaussian, centred=centred)

    def check_gaussian(self, layer: Activation, at: int, place: str) -> None:
        """Check that pre-activations are Gaussian: the closed form of an activation is an expectation over them."""
        if self.gaussian[at]:
            return
        before = self.nodes[at].layer
        if place == "layers[0]":
            raise ValueError(
                f"layers must start with a Conv or another linear layer, got {layer!r} at layers[0]: "
                "the closed form needs Gaussian pre-activations"
            )
        hint = ""
        if isinstance(before, Concat):
            hint = "; put the activation inside both paths, before the concat"
        raise ValueError(
            f"{place}, {layer!r}, must follow a Conv (or a pool, upsampling or sum of such), got {self.name(at)} "
            f"before it: the closed form needs Gaussian pre-activations{hint}"
        )

    def check_add(self, at: int, ends: tuple[int, ...], place: str) -> None:
        """Check that the covariance of a sum is the sum of the covariances; see the notes of :class:`Skip`."""
        for end, name in zip(ends, ("shortcut", "layers"), strict=True):
            if self.without_conv(0, end):
                raise ValueError(
                    f"{place}: {name} of a Skip with merge='add' must lead through a Conv, got a way from the image "
                    "without: the image has few channels, and a sum needs as many as a Conv has, infinitely many; "
                    "use shortcut=[Conv(1)] or merge='concat'"
                )
        if all(self.without_conv(at, end) for end in ends):
            raise ValueError(
                f"{place}: one path of a Skip with merge='add' must lead through a Conv on every way, got a way "
                "without in both shortcut and layers: a sum needs independent summands; use a Conv or merge='concat'"
            )
        if not any(self.centred[end] for end in ends):
            raise ValueError(
                f"{place}: one path of a Skip with merge='add' must have mean zero (a Conv, or an odd activation of "
                f"one), got {self.name(ends[0])} and {self.name(ends[1])} at the ends of shortcut and layers: end one "
                "path with a Conv, or use merge='concat'"
            )

    def without_conv(self, start: int, end: int) -> bool:
        """Tell whether a route leads from node ``start`` to node ``end`` without a Conv."""
        seen = {end}
        for n in range(end, start, -1):
            if n in seen and not isinstance(self.nodes[n].layer, Conv):
                seen.update(self.nodes[n].inputs)
        return start in seen

    def name(self, at: int) -> str:
        layer = self.nodes[at].layer
        return {Input: "the image", Concat: "a concat", Add: "a sum"}.get(type(layer), repr(layer))


@dataclass(frozen=True)
class Stage:
    """A stage is a convolution with the activation that follows it (``None``: none)."""

    conv: Conv
    activation: Rectifier | None


@dataclass(frozen=True, repr=False)
class Network:
    """Describe a convolutional network of infinite width: layers from the input image to its one output field.

    Parameters
    ----------
    layers : iterable of layers
        Starts with a linear layer and ends with a :class:`Conv` of stride 1 at the resolution of the image.
    padding : {"zeros", "circular"}
        What convolutions see outside the image (and outside the coarser features).  Bilinear upsampling does not see
        the zeros: see :class:`Upsample`.

    Raises
    ------
    TypeError, ValueError
        If a layer is not one of ours, or stands where its closed form does not hold.  The rules:

        - An activation needs Gaussian pre-activations, since its closed form is an expectation over them: the output
          of a Conv, of a pool or upsampling of such, or the sum of two such.  Not the image, another activation's
          output, or a concat, whose channels have two different covariances.
        - The paths of a sum must be independent, one of them must have mean zero, and neither may be the image: else
          the covariance of the sum is not the sum of the covariances (:class:`Skip` has the derivation).
        - Both paths of a Skip end at the same resolution, no layer is finer than the image, and the last one is as
          fine as the image, since the kernel is over the pairs of its pixels.

    Examples
    --------
    >>> Network([Conv(5), ReLU(), Conv(1)])
    Network([Conv(5), ReLU(), Conv(1)], padding='zeros')
    >>> Network([Conv(3), ReLU(), Skip([AvgPool(), Conv(3), ReLU(), Upsample()]), Conv(3)]).levels
    1
    """

    layers: tuple[Layer, ...]
    padding: str = "zeros"

    def __init__(self, layers: Iterable[Layer], padding: str = "zeros") -> None:
        checked = _as_layers("layers", layers)
        if not checked:
            raise ValueError("layers must hold at least one Conv, got none")
        graph = _Graph()
        last = graph.nodes[graph.path(checked, 0, "layers")]
        place = f"{checked[-1]!r} at layers[{len(checked) - 1}]"
        if not (isinstance(last.layer, Conv) and last.layer.stride == 1):
            raise ValueError(f"layers must end with a Conv of stride 1, got {place}")
        if last.scale != 1:
            raise ValueError(
                f"layers must end with a Conv at the resolution of the image (level 0), got level {last.level} for "
                f"{place}: use Upsample"
            )
        object.__setattr__(self, "layers", checked)
        object.__setattr__(self, "padding", _check.choice("padding", padding, PADDINGS))
        object.__setattr__(self, "_nodes", tuple(graph.nodes))

    def graph(self) -> tuple[Node, ...]:
        """Return the network as a flat list of steps, each after those that it takes as inputs.

        Returns
        -------
        tuple of Node
            Node 0 is the input.  Then one node for every Conv, activation, AvgPool and Upsample, and one for every
            Skip, a :class:`Concat` or :class:`Add` with the inputs (shortcut, branch).  The last is the output.

        Examples
        --------
        >>> [type(node.layer).__name__ for node in nf.vanilla_cnn(1, 3).graph()]
        ['Input', 'Conv', 'ReLU', 'Conv']
        """
        nodes: tuple[Node, ...] = self._nodes  # type: ignore[attr-defined]
        return nodes

    @property
    def convs(self) -> tuple[Conv, ...]:
        """Return the convolutions, in the order of the graph."""
        return tuple(node.layer for node in self.graph() if isinstance(node.layer, Conv))

    @property
    def depth(self) -> int:
        """Return the number of hidden layers: the activations on the longest path."""
        depths: list[int] = []
        for node in self.graph():
            depths.append(max((depths[n] for n in node.inputs), default=0) + isinstance(node.layer, Activation))
        return depths[-1]

    @property
    def levels(self) -> int:
        """Return the halvings of the resolution at the coarsest features; 0 for one resolution."""
        return max(node.level for node in self.graph())

    @property
    def multiple(self) -> int:
        """Return what sides of an image must be multiples of: 2**levels, which the scales of all features divide."""
        return math.lcm(*(node.scale for node in self.graph()))

    @property
    def receptive_field(self) -> int:
        """Return the side in pixels of the input patch that one output pixel sees.

        With several resolutions it depends on where the pixel lies in its coarsest cell: this is the largest.  Parts
        of the patch may be left out, as a Conv of stride 2 with a kernel of 1 does.
        """
        return max(last - first + 1 for first, last in map(self._sight, range(self.multiple)))

    def _sight(self, pixel: int) -> tuple[int, int]:
        """Return first and last input pixel, along one axis without borders, that the output pixel sees."""
        graph = self.graph()
        seen: dict[int, tuple[int, int]] = {len(graph) - 1: (pixel, pixel)}
        for n in range(len(graph) - 1, 0, -1):
            first, last = seen[n]
            layer = graph[n].layer
            if isinstance(layer, Conv):
                first, last = layer.stride * first - layer.radius, layer.stride * last + layer.radius
            elif isinstance(layer, AvgPool):
                first, last = layer.factor * first, layer.factor * (last + 1) - 1
            elif isinstance(layer, Upsample):
                first, last = layer.reads(first)[0][0], layer.reads(last)[-1][0]
            for m in graph[n].inputs:
                a, b = seen.get(m, (first, last))
                seen[m] = min(a, first), max(b, last)
        return seen[0]

    @property
    def trainable(self) -> bool:
        """Tell whether any convolution is trained; if not, the tangent kernel is zero."""
        return any(conv.trainable for conv in self.convs)

    def check_size(self, height: int, width: int) -> None:
        """Refuse an image whose sides cannot be halved ``levels`` times.

        Parameters
        ----------
        height, width : int
            Sides of the image in pixels.

        Raises
        ------
        ValueError
            If one of them is not a multiple of ``multiple``; the message has the nearest sizes that are.

        Examples
        --------
        >>> nf.unet(2).check_size(8, 12)
        >>> nf.unet(2).check_size(8, 13)
        Traceback (most recent call last):
        ValueError: image must have a height and a width that are multiples of 4 (Network.multiple), got 8 x 13: ...
        """
        m = self.multiple
        if height % m or width % m:
            nearest = (
                " or ".join(str(n) for n in sorted({side // m * m, -(-side // m) * m}) if n > 0)
                for side in (height, width)
            )
            raise ValueError(
                f"image must have a height and a width that are multiples of {m} (Network.multiple), "
                "got {} x {}: the nearest that fit are {} x {}".format(height, width, *nearest)
            )

    def stages(self) -> tuple[Stage, ...]:
        """Return the network as (convolution, activation or None) pairs, in order.

        Raises
        ------
        ValueError
            If it is more than a chain of Conv of stride 1 and ReLU, LeakyReLU or Abs.

        Examples
        --------
        >>> [stage.conv.kernel_size for stage in nf.vanilla_cnn(depth=2, kernel_size=5).stages()]
        [5, 5, 1]
        """
        graph = self.graph()
        stages: list[Stage] = []
        for n, node in enumerate(graph[1:]):
            layer = node.layer
            if isinstance(layer, Conv) and layer.stride == 1 and node.inputs == (n,):
                stages.append(Stage(layer, None))
            elif isinstance(layer, Rectifier) and node.inputs == (n,):
                stages[-1] = Stage(stages[-1].conv, layer)
            else:
                raise ValueError(
                    f"network must be a chain of Conv(stride=1), ReLU, LeakyReLU and Abs here, got {layer!r}"
                )
        return tuple(stages)

    def __repr__(self) -> str:
        return f"Network({list(self.layers)!r}, padding={self.padding!r})"


# --- Presets ------------------------------------------------------------------------------------------------------


def _count(name: str, value: Any) -> int:
    number = _check.integer(name, value)
    if number < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {number}")
    return number


def vanilla_cnn(depth: int = 1, kernel_size: int = 5, *, padding: str = "zeros") -> Network:
    """Build the plain denoising CNN: ``depth`` times (Conv(kernel_size), ReLU), then Conv(1).

    Parameters
    ----------
    depth : int
        Number of hidden layers, at least 1.
    kernel_size : int
        Side of the hidden kernels in pixels, odd.
    padding : {"zeros", "circular"}
        What convolutions see outside the image.

    Returns
    -------
    Network
        The "vanilla CNN" of Tachella, Tang, Davies, CVPR 2021 (section 5), with He variances.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> nf.vanilla_cnn(depth=2, kernel_size=3)
    Network([Conv(3), ReLU(), Conv(3), ReLU(), Conv(1)], padding='zeros')
    """
    layers: list[Layer] = []
    for _ in range(_count("depth", depth)):
        layers += [Conv(kernel_size), ReLU()]
    return Network([*layers, Conv(1)], padding=padding)


def autoencoder(
    levels: int = 2, kernel_size: int = 3, *, upsample: str = "bilinear", padding: str = "zeros"
) -> Network:
    """Build an autoencoder without skips: ``levels`` times down and up again, with a hidden layer at each resolution.

    There is one such layer on either way, and one at the coarsest resolution.

    Parameters
    ----------
    levels : int
        Number of halvings, at least 1.  Sides of images must be multiples of 2^levels.
    kernel_size : int
        Side of the hidden kernels in pixels of their own resolution, odd.
    upsample : {"bilinear", "nearest"}
        Mode of the upsampling.
    padding : {"zeros", "circular"}
        What convolutions see outside the image.

    Returns
    -------
    Network
        ``levels`` times (Conv, ReLU, AvgPool); Conv, ReLU; ``levels`` times (Upsample, Conv, ReLU); Conv(1).  With He
        variances.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> net = nf.autoencoder(levels=1)
    >>> net
    Network([Conv(3), ReLU(), AvgPool(), Conv(3), ReLU(), Upsample(), Conv(3), ReLU(), Conv(1)], padding='zeros')
    >>> net.multiple  # sides of images must be multiples of it
    2
    """
    levels = _count("levels", levels)
    hidden: list[Layer] = [Conv(kernel_size), ReLU()]
    down, up = [*hidden, AvgPool()], [Upsample(mode=upsample), *hidden]
    return Network([*levels * down, *hidden, *levels * up, Conv(1)], padding=padding)


def unet(
    levels: int = 2,
    kernel_size: int = 3,
    *,
    upsample: str = "bilinear",
    padding: str = "zeros",
    share: float = DEFAULT_SHARE,
) -> Network:
    """Build a U-Net: at each resolution a hidden layer before and one after a skip around all coarser ones.

    Parameters
    ----------
    levels : int
        Number of halvings, at least 1.  Sides of images must be multiples of 2^levels.
    kernel_size : int
        Side of the hidden kernels in pixels of their own resolution, odd.
    upsample : {"bilinear", "nearest"}
        Mode of the upsampling.
    padding : {"zeros", "circular"}
        What convolutions see outside the image.
    share : float
        Share of the channels of each concat that comes from the coarser features, 0 < share < 1.

    Returns
    -------
    Network
        Conv, ReLU, Skip([AvgPool, the next level, Upsample]), Conv, ReLU at each level; Conv, ReLU at the coarsest;
        Conv(1) at the end.  With He variances.  After Ronneberger, Fischer, Brox, MICCAI 2015, with pools and
        upsampling for their max-pools and transposed convolutions, which have no closed form.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> net = nf.unet(levels=2)
    >>> net.levels, net.multiple, net.depth
    (2, 4, 5)
    """
    hidden: list[Layer] = [Conv(kernel_size), ReLU()]
    layers = hidden
    for _ in range(_count("levels", levels)):
        layers = [*hidden, Skip([AvgPool(), *layers, Upsample(mode=upsample)], share=share), *hidden]
    return Network([*layers, Conv(1)], padding=padding)


# A value that is shown in a message is cut to so many letters.
MOST_LETTERS = 200


def as_network(value: Any, *, trainable: bool = False) -> Network:
    """Return the argument ``network``, or refuse it; with ``trainable`` one convolution at least must be trained."""
    if not isinstance(value, Network):
        said = repr(value)
        if len(said) > MOST_LETTERS:  # an image, say
            said = f"{said[:MOST_LETTERS]}..."
        module = any(kind.__module__.partition(".")[0] == "torch" for kind in type(value).__mro__)
        hint = ": ntkfast.from_torch makes one of a module" * module
        hint += ": give ntkfast.Network(layers)" * isinstance(value, (list, tuple))
        raise TypeError(f"network must be an ntkfast.Network, got {said}{hint}")
    if trainable and not value.trainable:
        raise ValueError("network must have a trainable Conv, got all of them frozen")
    return value
