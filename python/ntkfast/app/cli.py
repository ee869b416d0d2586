"""Command line: ``ntkfast denoise | affinity | info``.

Only the standard library and NumPy are imported here; image codecs, matplotlib and tqdm are imported by the command
that needs them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .. import _choices
from . import figures, image_files
from .exit_codes import FAILURE, INTERRUPTED, SUCCESS, USAGE

if TYPE_CHECKING:
    from ..restoration.denoise import DenoiseInfo
    from ..restoration.noise_model import NoiseModel
    from ..restoration.options import Compute, Tiles, WholeImage

__all__ = ["build_parser", "main"]

EPILOG = "exit codes: 0 success, 1 the work failed, 2 wrong usage or existing output without --force, 130 interrupted"

DENOISE_HELP = """\
Remove noise from a picture with the neural tangent kernel filter of a convolutional network.

PNG (8 and 16 bit), TIFF (also floating point) and JPEG.  Size, dtype and alpha plane of the input are preserved; the
format of the output is chosen by the extension of its name.  The output appears complete or not at all."""

SIGMA_HELP = """\
standard deviation of the noise, in units of the file's own values: 0..255 for 8 bit files, 0..65535 for 16 bit files,
the file's own units for floating point files; or one for each channel, S,S,... (default: estimated from the picture).
With --noise-gain that of the part that does not depend on the signal (default then: 0)"""

SIGMA_MAP_HELP = """\
in place of --sigma: a gray picture of the same size, TIFF (also floating point) or PNG, whose values are the standard
deviation at each pixel, > 0, in units of the values of IN"""

NOISE_GAIN_HELP = """\
for noise that grows with the signal, of variance G * mean + S^2 (Poisson and Gaussian): the value of one count in units
of the file's own values.  An offset must have been subtracted"""

STRENGTH_HELP = """\
the filter reckons with this many times the noise level: more than 1 smooths more, 0 keeps the picture (default: 1; no
effect with --steps)"""

METHOD_HELP = """\
tiles (the default): small overlapping tiles; whole-image: the whole picture at once, which takes many minutes for a
large one unless --landmarks is given"""

LANDMARKS_HELP = """\
with --method whole-image: a low-rank kernel that rests on N pixels, in place of the exact one"""

STOPPING_HELP = """\
rule that chooses the steps: sure (Stein's risk estimate), recorrupted (noise is added), held_out (hidden pixels are
predicted) or calibrated (times known beforehand, for photographs; no trial).  Default: sure"""

STEPS_HELP = """\
steps of gradient descent, N for every pass, or N,N,... with one for each (default: chosen)"""

SIZE_HELP = f"side of the tiles in pixels (default: {_choices.SIZE})"

OVERLAP_HELP = f"overlap of the tiles in pixels (default: {_choices.OVERLAP}, or all but one of small tiles)"

PASSES_HELP = f"passes in all, each after the first with the kernel of the result so far (default: {_choices.PASSES})"

DEVICE_HELP = """\
auto, or a device that `ntkfast info` lists (default: auto, a GPU for tiles large enough to gain, if there is one)"""

REPORT_HELP = """\
also write an HTML page on which the result can be judged, its pictures inside: what was removed, enlarged parts, filter
weights of some pixels, and what was done (needs matplotlib)"""

CLEAN_HELP = """\
the picture without noise, for PAGE: adds PSNR, also over the number of steps, for which the denoiser runs up to 6 more
times"""

AFFINITY_HELP = """\
Draw the filter weights of one pixel over the picture: which other pixels, near and far, the kernel averages it with."""

INFO_HELP = """\
Print versions, threads and instruction sets: those compiled in, those that this processor has, and the active one.  The
environment variable NTKFAST_ISA selects another one.  And of GPUs the architectures compiled in, the driver and which
there are, or what is missing."""


# These go to the option objects under the same names, where they are given.
TILES_OPTIONS = ("size", "overlap")
WHOLE_IMAGE_OPTIONS = ("landmarks",)
PASSES_OPTIONS = ("passes", "stopping", "steps")
COMPUTE_OPTIONS = ("device", "threads")


class UsageError(Exception):
    """A wrong argument that shows only when files are looked at."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code: 0 success, 1 the work failed, 2 wrong usage or existing output, 130 interrupted.
    """
    name, debug = "ntkfast", False
    try:
        arguments = sys.argv[1:] if argv is None else argv
        args = build_parser().parse_args(arguments)
        args.command_line = shlex.join(["ntkfast", *arguments])
        name, debug = f"ntkfast {args.command}", args.debug
        args.run(args)
        sys.stdout.flush()
        return SUCCESS
    except SystemExit as stop:  # argparse has said what there is to say
        return stop.code if isinstance(stop.code, int) else FAILURE
    except BrokenPipeError:
        # The reader of our output has gone (ntkfast info | head).  Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except KeyboardInterrupt:
        return _complain(name, "interrupted", INTERRUPTED, debug)
    except FileExistsError as error:
        return _complain(name, f"error: {_text(error)}; --force overwrites it", USAGE, debug)
    except UsageError as error:
        return _complain(name, f"error: {error}", USAGE, debug)
    except MemoryError as error:
        return _complain(name, f"error: out of memory: {_text(error) or 'try smaller tiles'}", FAILURE, debug)
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # while a compiled module was imported, which then failed
            return _complain(name, "interrupted", INTERRUPTED, debug)
        return _complain(name, f"error: {_text(error) or type(error).__name__}", FAILURE, debug)


def _complain(name: str, message: str, code: int, debug: bool) -> int:
    """Say on one line of stderr what went wrong and return ``code``."""
    if debug:
        traceback.print_exc()
    print(f"{name}: {message}", file=sys.stderr)
    return code


def _text(error: BaseException) -> str:
    """Return the message of an exception on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return " ".join(str(error).split())


# ---------------------------------------------------------------------------------------------------------- arguments


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="ntkfast", description="Image denoising by exact neural tangent kernels.", epilog=EPILOG
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], None], description: str, brief: str) -> Any:
        command = commands.add_parser(name, parents=[common], help=brief, description=description, epilog=EPILOG)
        command.set_defaults(run=run)
        return command

    _add_denoise_arguments(add("denoise", _denoise, DENOISE_HELP, "remove noise from a picture"))
    _add_affinity_arguments(add("affinity", _affinity, AFFINITY_HELP, "draw the filter weights of one pixel"))
    info = add("info", _info, INFO_HELP, "print versions, threads and instruction sets")
    info.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_denoise_arguments(parser: argparse.ArgumentParser) -> None:
    endings = ", ".join(image_files.EXTENSIONS)
    parser.add_argument("input", metavar="IN", help="picture to read: PNG, TIFF or JPEG")
    parser.add_argument("output", metavar="OUT", type=_output_picture, help=f"picture to write, named *{endings}")
    parser.add_argument("--sigma", metavar="S[,S...]", type=_levels, help=SIGMA_HELP)
    parser.add_argument("--sigma-map", metavar="FILE", help=SIGMA_MAP_HELP)
    parser.add_argument("--noise-gain", metavar="G", type=_positive, help=NOISE_GAIN_HELP)
    parser.add_argument("--strength", metavar="F", type=_not_negative, help=STRENGTH_HELP)
    parser.add_argument("--method", choices=_choices.METHODS, default=_choices.METHODS[0], help=METHOD_HELP)
    parser.add_argument("--landmarks", metavar="N", type=_at_least(1), help=LANDMARKS_HELP)
    parser.add_argument("--steps", metavar="N[,N...]", type=_steps, help=STEPS_HELP)
    parser.add_argument("--stopping", choices=_choices.RULES, help=STOPPING_HELP)
    parser.add_argument("--size", metavar="N", type=_at_least(1), help=SIZE_HELP)
    parser.add_argument("--overlap", metavar="N", type=_at_least(0), help=OVERLAP_HELP)
    parser.add_argument("--passes", metavar="N", type=_at_least(1), help=PASSES_HELP)
    parser.add_argument("--rng", metavar="N", type=_at_least(0), help="start of the random numbers (default: 0)")
    parser.add_argument(
        "--threads",
        metavar="N",
        type=_at_least(1, _choices.MOST_THREADS),
        help="number of threads (default: all cores)",
    )
    parser.add_argument("--device", metavar="D", type=_device, help=DEVICE_HELP)
    parser.add_argument("--report", metavar="PAGE", type=_output_page, help=REPORT_HELP)
    parser.add_argument("--clean", metavar="PICTURE", help=CLEAN_HELP)
    parser.add_argument("--force", action="store_true", help="overwrite OUT and PAGE, even if OUT is IN")
    parser.add_argument("--quiet", action="store_true", help="print neither progress nor summary")


def _add_affinity_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN", help="picture to read: PNG, TIFF or JPEG")
    parser.add_argument(
        "--at", metavar="ROW,COL", type=_row_col, required=True, help="the pixel, counted from 0,0 at the top left"
    )
    endings = ", ".join(figures.FIGURE_FORMATS)
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=_output_figure, required=True, help=f"figure to write, named *{endings}"
    )
    parser.add_argument("--kernel-size", metavar="K", type=_odd, help="side of the network's kernels in pixels, odd")
    parser.add_argument("--depth", metavar="N", type=_at_least(1), help="number of hidden layers")
    parser.add_argument("--padding", choices=_choices.PADDINGS, help="what the network sees outside the picture")
    parser.add_argument("--kernel", choices=_choices.KERNELS, help="neural tangent kernel, or Gaussian process kernel")
    parser.add_argument("--force", action="store_true", help="overwrite OUT")


class _Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        import ntkfast

        print(f"ntkfast {ntkfast.__version__}")
        parser.exit()


def _at_least(minimum: int, most: int | None = None) -> Callable[[str], int]:
    """Return a parser of integers that are no less than ``minimum``, and no more than ``most``."""

    def parse(text: str) -> int:
        with contextlib.suppress(ValueError):
            if (value := int(text)) >= minimum and (most is None or value <= most):
                return value
        wanted = f">= {minimum}" if most is None else f"from {minimum} to {most}"
        raise argparse.ArgumentTypeError(f"must be an integer {wanted}, got {text!r}")

    return parse


def _steps(text: str) -> int | list[int]:
    """Read one number for all passes, or one for each."""
    with contextlib.suppress(ValueError):
        numbers = [int(part) for part in text.split(",")]
        if min(numbers) >= 1:
            return numbers if len(numbers) > 1 else numbers[0]
    raise argparse.ArgumentTypeError(f"must be an integer >= 1, or several as in 150,1000, got {text!r}")


def _odd(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (value := int(text)) >= 1 and value % 2 == 1:
            return value
    raise argparse.ArgumentTypeError(f"must be an odd integer >= 1, got {text!r}")


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if (value := float(text)) > 0 and math.isfinite(value):
            return value
    raise argparse.ArgumentTypeError(f"must be a finite number > 0, got {text!r}")


def _not_negative(text: str) -> float:
    with contextlib.suppress(ValueError):
        if (value := float(text)) >= 0 and math.isfinite(value):
            return value
    raise argparse.ArgumentTypeError(f"must be a finite number >= 0, got {text!r}")


def _levels(text: str) -> float | list[float]:
    """Read one number for all channels, or one for each."""
    numbers = [_positive(part) for part in text.split(",")]
    return numbers if len(numbers) > 1 else numbers[0]


def _row_col(text: str) -> tuple[int, int]:
    with contextlib.suppress(ValueError):
        row, col = map(int, text.split(","))
        if row >= 0 and col >= 0:
            return row, col
    raise argparse.ArgumentTypeError(f"must be ROW,COL, two integers >= 0 such as 120,45, got {text!r}")


def _device(text: str) -> str:
    from ..engine import backend  # takes long to import: only where it is asked for

    try:
        backend.parsed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("device ")) from None
    return text


def _output_picture(text: str) -> str:
    try:
        image_files.output_format(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _output_figure(text: str) -> str:
    if os.path.splitext(text)[1].lower() not in figures.FIGURE_FORMATS:
        raise argparse.ArgumentTypeError(f"must be named *{', '.join(figures.FIGURE_FORMATS)}, got {text!r}")
    return text


def _output_page(text: str) -> str:
    if os.path.splitext(text)[1].lower() not in (".html", ".htm"):
        raise argparse.ArgumentTypeError(f"must be named *.html or *.htm, got {text!r}")
    return text


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the options that the user gave; the others keep the defaults of the function they are meant for."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


# ----------------------------------------------------------------------------------------------------------- commands


def _denoise(args: argparse.Namespace) -> None:
    import ntkfast

    from ..images import last_axis

    _check_options(args)
    image_files.check_destination(args.output, overwrite=args.force, source=args.input)
    image = image_files.read_image(args.input)
    image_files.check_format(image, args.output)
    clean = _check_report(args, image)
    options = {
        "channel_axis": last_axis(image.pixels),
        "noise": _noise_model(args, image),
        **_given(args, "strength", "rng"),
    }
    with _progress("denoise", args.quiet) as progress:
        denoised, info = ntkfast.denoise_ntk(
            image.pixels, method=_method(args), compute=_compute(args, progress), return_info=True, **options
        )
    image_files.write_image(replace(image, pixels=denoised), args.output, overwrite=args.force)
    if not args.quiet:
        print(f"{_summary(info)} -> {_printable(args.output)}", flush=True)
    if args.report is not None:
        _write_report(args, image, denoised, info, clean, options | {"noise": info.noise})
        if not args.quiet:
            print(f"report -> {_printable(args.report)}")


def _method(args: argparse.Namespace) -> Tiles | WholeImage:
    import ntkfast

    if args.method == "tiles":
        return ntkfast.Tiles(**_given(args, *TILES_OPTIONS, *PASSES_OPTIONS))
    return ntkfast.WholeImage(**_given(args, *WHOLE_IMAGE_OPTIONS, *PASSES_OPTIONS))


def _compute(args: argparse.Namespace, progress: Callable[[float], None] | None) -> Compute:
    import ntkfast

    return ntkfast.Compute(progress=progress, **_given(args, *COMPUTE_OPTIONS))


def _noise_model(args: argparse.Namespace, image: image_files.ImageFile) -> NoiseModel | None:
    """Return what the options say of the noise; None if it is to be estimated."""
    import ntkfast

    if args.sigma_map is not None:
        return ntkfast.NoiseModel(_read_sigma_map(args, image))
    if args.noise_gain is not None:
        return ntkfast.PoissonGaussian(args.noise_gain, args.sigma or 0.0)
    if isinstance(args.sigma, list) and len(args.sigma) != image.channels:
        channels = _count(image.channels, "channel")
        raise UsageError(f"argument --sigma: must be one number or, for {channels}, as many, got {len(args.sigma)}")
    return None if args.sigma is None else ntkfast.NoiseModel(args.sigma)


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if args.sigma_map is not None:
        for name, value in (("--sigma", args.sigma), ("--noise-gain", args.noise_gain)):
            if value is not None:
                raise UsageError(f"argument --sigma-map: not allowed with argument {name}")
    if args.noise_gain is not None and isinstance(args.sigma, list):
        raise UsageError(f"argument --sigma: must be one number with --noise-gain, got {len(args.sigma)}")
    strangers = {"tiles": WHOLE_IMAGE_OPTIONS, "whole-image": TILES_OPTIONS}[args.method]
    for name in _given(args, *strangers):
        other = next(method for method in _choices.METHODS if method != args.method)
        raise UsageError(f"argument --{name}: needs --method {other}")
    passes = _choices.PASSES if args.passes is None else args.passes
    if isinstance(args.steps, list) and len(args.steps) != passes:
        raise UsageError(f"argument --steps: must be one number or {passes}, one for each pass, got {len(args.steps)}")
    size = _choices.SIZE if args.size is None else args.size
    if args.overlap is not None and args.overlap >= size:
        raise UsageError(f"argument --overlap: must be below --size, {size}, got {args.overlap}")


def _read_sigma_map(args: argparse.Namespace, image: image_files.ImageFile) -> np.ndarray:
    """The standard deviation at each pixel (H, W), from the file."""
    levels = image_files.read_image(args.sigma_map)
    if levels.pixels.shape != image.pixels.shape[:2]:
        rows, cols = image.pixels.shape[:2]
        raise UsageError(
            f"argument --sigma-map: must be a gray picture of {rows} rows and {cols} columns as {args.input} is, got "
            f"{_size(levels)}"
        )
    if not (np.isfinite(levels.pixels).all() and levels.pixels.min() > 0):
        raise UsageError("argument --sigma-map: must be finite and > 0 at every pixel")
    return levels.pixels


def _check_report(args: argparse.Namespace, image: image_files.ImageFile) -> image_files.ImageFile | None:
    """Refuse what would fail after the work; return the clean picture if there is one."""
    if args.report is None:
        if args.clean is not None:
            raise UsageError("argument --clean: needs --report PAGE, on which it is used")
        return None
    figures.check_available()
    image_files.check_destination(args.report, overwrite=args.force, source=args.input)
    if args.clean is None:
        return None
    clean = image_files.read_image(args.clean)
    if clean.pixels.shape != image.pixels.shape:
        raise UsageError(f"argument --clean: must have the size of {args.input}, {_size(image)}, got {_size(clean)}")
    integers = [picture.dtype.kind in "ui" for picture in (clean, image)]
    if any(integers) and clean.dtype != image.dtype:  # the units would differ
        raise UsageError(f"argument --clean: must have the dtype of {args.input}, {image.dtype}, got {clean.dtype}")
    if not np.isfinite(clean.pixels).all():
        raise UsageError("argument --clean: must be finite, got NaN or infinity")
    return clean


def _size(image: image_files.ImageFile) -> str:
    rows, cols = image.pixels.shape[:2]
    return f"{rows} rows, {cols} columns and {_count(image.channels, 'channel')}"


def _write_report(
    args: argparse.Namespace,
    image: image_files.ImageFile,
    denoised: np.ndarray,
    info: DenoiseInfo,
    clean: image_files.ImageFile | None,
    options: dict[str, Any],
) -> None:
    """Write the page; ``options`` are those of the denoiser, but for the method and where it is computed."""
    import ntkfast

    from . import report

    peak = float(np.iinfo(image.dtype).max - np.iinfo(image.dtype).min) if image.dtype.kind in "ui" else None
    path: list[report.PathPoint] = []
    started = time.perf_counter()
    if clean is not None:
        with _progress("report", args.quiet) as progress:
            runs = 0

            def share(fraction: float) -> None:
                if progress is not None:
                    progress((runs - 1 + fraction) / (len(report.PATH_FACTORS) - 1))

            def run(steps: list[int]) -> np.ndarray:
                nonlocal runs
                runs += 1
                method = replace(_method(args), steps=steps)
                compute = _compute(args, share)
                return np.asarray(ntkfast.denoise_ntk(image.pixels, method=method, compute=compute, **options))

            path = report.psnr_path(run, info.steps, denoised, clean.pixels, peak)
    page = report.page(
        image.pixels,
        denoised,
        info,
        clean=None if clean is None else clean.pixels,
        peak=peak,
        value_range=(0.0, 255.0) if image.dtype == np.uint8 else None,
        path=path,
        path_seconds=time.perf_counter() - started,
        title=f"{os.path.basename(args.input)}, denoised",
        facts={"noise level": f"{_noise(info)}, in the picture's units", "command": args.command_line},
    )
    # A file name may be any bytes: what UTF-8 cannot hold is escaped.
    data = page.encode("utf-8", errors="backslashreplace")
    image_files.write_atomically(args.report, data, overwrite=args.force)


def _summary(info: DenoiseInfo) -> str:
    """Say on one line what the denoiser did."""
    from .report import method_text

    steps = " + ".join(map(str, info.steps)) or "no"  # one a pass
    rule = "" if info.stopping == "none" else f" ({info.stopping})"
    work = f"{method_text(info.method, info.tiles)}, {steps} steps{rule}"
    return f"noise level {_noise(info)}, {work}, {info.seconds:.1f} s"


def _noise(info: DenoiseInfo) -> str:
    """Noise level and where it comes from."""
    import ntkfast

    sigma = info.noise.sigma
    if isinstance(info.noise, ntkfast.PoissonGaussian):
        return f"{_level(sigma)} with gain {_level(info.noise.gain)} (given)"
    if np.ndim(sigma) == 1:
        return f"{', '.join(map(_level, sigma))} (given)"
    origin = "estimated" if info.noise.estimated else "given" if np.ndim(sigma) == 0 else "from a map"
    return f"{_level(sigma if np.ndim(sigma) == 0 else info.level)} ({origin})"


def _level(sigma: float) -> str:
    return f"{sigma:.3g}" if sigma < 100 else f"{sigma:.0f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _printable(path: str) -> str:
    """Return a file name with what stdout cannot print escaped: a name may be any bytes."""
    encoding = sys.stdout.encoding or "utf-8"
    return path.encode(encoding, errors="backslashreplace").decode(encoding)


@contextlib.contextmanager
def _progress(label: str, quiet: bool) -> Iterator[Callable[[float], None] | None]:
    """Give a callback that draws a bar from fractions 0..1, or None where nobody would see it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    style = "{desc} {percentage:3.0f}% |{bar}| {elapsed}, {remaining} left"
    size = shutil.get_terminal_size()  # tqdm alone draws nothing on a terminal that does not know its size
    shape = {"ncols": size.columns, "nrows": size.lines}
    with tqdm(total=1.0, desc=label, file=sys.stderr, leave=False, bar_format=style, **shape) as bar:

        def show(fraction: float) -> None:
            bar.update(min(fraction, 1.0) - bar.n)

        yield show


def _affinity(args: argparse.Namespace) -> None:
    import ntkfast

    from ..images import last_axis

    figures.check_available()
    image_files.check_destination(args.output, overwrite=args.force, source=args.input)
    image = image_files.read_image(args.input)
    (height, width), (row, col) = image.pixels.shape[:2], args.at
    if row >= height or col >= width:
        raise UsageError(
            f"argument --at: must lie within the picture's {height} rows and {width} columns, counted from 0, "
            f"got {row},{col}"
        )
    network = ntkfast.vanilla_cnn(**_given(args, "depth", "kernel_size", "padding"))
    # The kernel sees differences from the mean: absolute brightness would make all patches look alike.
    centred = image.pixels - image.pixels.mean(dtype=np.float64).astype(image.pixels.dtype)
    operator = ntkfast.NNGP if args.kernel == "nngp" else ntkfast.NTK
    kernel = operator(network, centred, channel_axis=last_axis(centred))
    figure = figures.affinity_figure(
        image.pixels,
        np.asarray(kernel.affinity(row, col)),
        row,
        col,
        value_range=(0.0, 255.0) if image.dtype == np.uint8 else None,
        patch=network.receptive_field,
        title=f"{operator.__name__} of {network!r}",
    )
    form = figures.FIGURE_FORMATS[os.path.splitext(args.output)[1].lower()]
    image_files.write_atomically(args.output, figures.render(figure, form), overwrite=args.force)


def _info(args: argparse.Namespace) -> None:
    import ntkfast

    items = {
        **ntkfast.info(),
        "NTKFAST_ISA": os.environ.get("NTKFAST_ISA", "not set"),
    }
    if args.json:
        print(json.dumps(items, indent=2, default=str))
        return
    width = max(map(len, items)) + 1
    for key, value in items.items():
        print(f"{key + ':':<{width}} {_shown(value)}")


def _shown(value: Any) -> str:
    """Write what ``ntkfast.info`` holds for people: the number of things with properties, and these."""
    from ..engine.memory import readable

    if isinstance(value, dict):
        name, *others = value.items()
        said = [readable(part) if key == "bytes" else f"{key} {part}" for key, part in others]
        return ", ".join([str(name[1]), *said])
    if isinstance(value, (list, tuple)):
        parts = [f"{n}: {_shown(part)}" if isinstance(part, dict) else str(part) for n, part in enumerate(value)]
        return ("; " if parts and isinstance(value[0], dict) else ", ").join(parts) or "none"
    return "none" if value is None else str(value)
