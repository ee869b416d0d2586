"""Make the pictures of README.md: ``python examples/make_readme_pictures.py``, from the root of the repository.

It writes ``docs/images/{noisy,denoised}.jpg`` (256 x 256 around the face of ``denoise_photo.py``'s photograph, noise
level 25 of 255) and ``docs/images/affinity.png``, replacing the old ones.  The ``plot`` extra is needed.
"""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
from denoise_photo import CHEEK, add_noise, crop_start, denoise, eight_bit, photograph

import ntkfast as nf
from ntkfast.app import figures
from ntkfast.app.image_files import write_atomically

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
SIZE, SIGMA = 256, 25.0
JPEG_QUALITY = 90
DPI = 72


def main() -> None:
    """Denoise the crop and write the three pictures."""
    figures.check_available()
    FOLDER.mkdir(parents=True, exist_ok=True)
    noisy = add_noise(photograph(SIZE), SIGMA)
    denoised, info = denoise(noisy)
    files = {
        "noisy.jpg": imagecodecs.jpeg8_encode(eight_bit(noisy), level=JPEG_QUALITY),
        "denoised.jpg": imagecodecs.jpeg8_encode(eight_bit(denoised), level=JPEG_QUALITY),
    }

    row, col = (place - start for place, start in zip(CHEEK, crop_start(SIZE), strict=True))
    kernel = nf.NTK(info.method.network, denoised - denoised.mean(), channel_axis=-1)
    figure = figures.affinity_figure(
        denoised,
        kernel.affinity(row, col),
        row,
        col,
        value_range=(0, 255),
        patch=info.method.network.receptive_field,
        title=f"NTK of {info.method.network!r}",
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    files["affinity.png"] = buffer.getvalue()

    for name, data in files.items():
        write_atomically(FOLDER / name, data, overwrite=True)
        print(f"{FOLDER.name}/{name}: {len(data) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
