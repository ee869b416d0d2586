"""Train a network of finite width on a noisy picture, and compare it with the closed form at every stage.

    python examples/gradient_descent_closed_form.py [--size N] [--width C] [--steps T]

It prints, for some steps of gradient descent, the PSNR of the trained network and of the closed form, and the distance
|z - z_closed| / |y| of the trained output to two closed forms: with the kernel of infinite width, and with the
network's own kernel at the start.  The first distance falls as one over the square root of the width; what is left of
it in the second is how much the kernel moves during training.  PyTorch is needed.

The picture is scikit-image's *camera* (public domain), made smaller by averaging; values are 0 to 1.
"""

import argparse

import numpy as np
import skimage.data
import torch
from skimage.metrics import peak_signal_noise_ratio

import ntkfast as nf
from ntkfast.finite import Record, empirical_ntk, to_torch, train


def main() -> None:
    parser = argparse.ArgumentParser(description="Training of a finite network next to the closed form.")
    parser.add_argument("--size", type=int, default=32, help="side of the picture in pixels, divides 512 (default 32)")
    parser.add_argument("--width", type=int, default=128, help="hidden channels (default 128)")
    parser.add_argument("--steps", type=int, default=300, help="steps of gradient descent (default 300)")
    args = parser.parse_args()
    if args.size < 1 or 512 % args.size:
        parser.error(f"argument --size: must divide 512, got {args.size}")

    cell = 512 // args.size
    clean = skimage.data.camera().reshape(args.size, cell, args.size, cell).mean(axis=(1, 3)) / 255
    noisy = clean + np.random.default_rng(0).normal(0, 25 / 255, clean.shape)
    mean = noisy.mean()
    clean, y = clean - mean, noisy - mean

    network = nf.vanilla_cnn(depth=2, kernel_size=3)
    K = nf.NTK(network, y)
    record = sorted({0, *np.geomspace(1, args.steps, 8).round().astype(int).tolist()})
    limit, info = nf.gradient_descent(K, y, record, return_info=True)

    module = to_torch(network, args.width, in_channels=1, dtype=torch.float32)
    own = nf.gradient_descent(empirical_ntk(module, y), y, record, info.learning_rate)
    watch = Record(steps=record, clean=clean, data_range=1)
    training = train(module, y, y, steps=args.steps, learning_rate=info.learning_rate, record=watch)

    psnr = [peak_signal_noise_ratio(clean, z, data_range=1) for z in limit]
    norm = np.linalg.norm(y)
    print(f"width {args.width}, {args.size} x {args.size} pixels, learning rate {info.learning_rate:.3g}")
    print("step   loss      PSNR (dB)  closed form   distance   to that of its own kernel")
    for n, step in enumerate(record):
        to_limit, to_own = (np.linalg.norm(training.outputs[n] - z[n]) / norm for z in (limit, own))
        print(
            f"{step:4d}   {training.loss[n]:8.4f}  {training.psnr[n]:9.2f}  {psnr[n]:11.2f}   {to_limit:8.4f}   "
            f"{to_own:8.4f}"
        )


if __name__ == "__main__":
    main()
