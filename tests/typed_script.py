"""This is a user's script, which no test runs: mypy reads it, strictly, and what each call returns is asserted."""

from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from typing_extensions import assert_type

import ntkfast as nf

image = np.zeros((8, 8))
tensor = torch.zeros(8, 8)
net = nf.vanilla_cnn(depth=1, kernel_size=3, padding="circular")

K = nf.NTK(net, image, channel_axis=None, device="cpu", dtype=np.float64, storage="dense", threads=2, progress=print)
S = nf.NNGP(net, nf.NoiseInput((8, 8)))
assert_type(K, nf.NTK)
assert_type(S, nf.NNGP)
assert_type(K.image_shape, tuple[int, int])
assert_type(K.lambda_max, float | None)
assert_type((K.device, K.storage, K.threads, K.channels), tuple[str, str, int, int])
assert_type(K.network, nf.Network)

low = nf.nystrom(K, 9, landmarks="random", rng=np.random.default_rng(0))
assert_type(low, nf.LowRank)
assert_type(nf.randomized_low_rank(S, 4, sweeps=2, rng=None), nf.LowRank)
assert_type(low.estimate_error(K, samples=8, rng=3), nf.ErrorEstimate)
assert_type((low.rank, low.trace_error), tuple[int, float])

array: np.ndarray = image
for operator in (K, S, low):
    assert_type(operator.apply(array), np.ndarray)
    assert_type(operator.apply(tensor), torch.Tensor)
    assert_type(operator.matvec(array), np.ndarray)
    assert_type(operator.matmat(tensor), torch.Tensor)
    assert_type(operator.dot(array), np.ndarray)
    assert_type(operator.dot([1.0]), np.ndarray)
    assert_type(operator.dot(2.0), LinearOperator)
    assert_type(operator.columns([0, 1]), np.ndarray)
    assert_type(operator.affinity(2, 3), np.ndarray)
    assert_type(operator.dense(), np.ndarray)
    assert_type(operator.diagonal(), np.ndarray)

assert_type(nf.gradient_descent(K, array, steps=[1, 2]), np.ndarray)
assert_type(nf.gradient_descent(K, tensor, 5, 0.1, method="iteration"), torch.Tensor)
assert_type(nf.gradient_descent(low, array, return_info=True), tuple[np.ndarray, nf.FilterInfo])
assert_type(nf.gradient_descent(K, tensor, return_info=True), tuple[torch.Tensor, nf.FilterInfo])
assert_type(nf.gradient_flow(K, array, 1.0), np.ndarray)
assert_type(nf.gradient_flow(K, tensor, [1.0], return_info=True), tuple[torch.Tensor, nf.FilterInfo])
assert_type(nf.ridge(K, array, 0.1, tolerance=1e-6, max_products=50), np.ndarray)
assert_type(nf.ridge(K, array, [0.1], return_info=True), tuple[np.ndarray, nf.FilterInfo])

assert_type(nf.reference.kernel_matrix(net, image, "nngp", channel_axis=None), np.ndarray)
assert_type(nf.info(), dict[str, Any])
assert_type(nf.roofline(net, channels=1, columns=1, threads=1), float)
module = torch.nn.Conv2d(1, 1, 1)
for made in (nf.unet(1, 3, upsample="nearest", share=0.25), nf.autoencoder(1), nf.from_torch(module, init="he")):
    assert_type(made, nf.Network)
assert_type(
    nf.Network([nf.Conv(3, bias_var=0.1), nf.GELU(), nf.Skip([nf.AvgPool(), nf.Conv(3), nf.Upsample()])]), nf.Network
)

compute = nf.Compute("cpu", dtype="float64", threads=1, progress=lambda fraction: None)
tiles, whole = nf.Tiles(net, 12, 6, passes=1, stopping="recorrupted"), nf.WholeImage(landmarks=9, steps=(3, 4))
assert_type(nf.denoise_ntk(array), np.ndarray)
assert_type(nf.denoise_ntk(tensor, 0.1, channel_axis=0, method=tiles, compute=compute), torch.Tensor)
assert_type(nf.denoise_ntk(array, strength=1.2, rng=None, return_info=True), tuple[np.ndarray, nf.DenoiseInfo])
# The dtype of the result is not that of integers, or of half precision: nothing is claimed of it.
integers = np.zeros((4, 4), np.uint8)
assert_type(nf.denoise_ntk(integers), np.ndarray)
assert_type(nf.denoise_ntk(array > 0, return_info=True), tuple[np.ndarray, nf.DenoiseInfo])
assert_type(nf.denoise_ntk(integers, frame_axis=0, return_info=True), tuple[np.ndarray, tuple[nf.DenoiseInfo, ...]])
pictures = [array, array]
assert_type(nf.denoise_ntk(pictures, 0.1, method=whole), list[np.ndarray])
assert_type(
    nf.denoise_ntk(pictures, noise=[nf.NoiseModel(1), nf.PoissonGaussian(2.0)], return_info=True),
    tuple[list[np.ndarray], tuple[nf.DenoiseInfo, ...]],
)
assert_type(nf.denoise_ntk(array, frame_axis=0, return_info=True), tuple[np.ndarray, tuple[nf.DenoiseInfo, ...]])
assert_type(nf.estimate_noise(array), nf.NoiseModel)
assert_type(nf.estimate_noise(pictures, channel_axis=-1), list[nf.NoiseModel])
assert_type(nf.estimate_noise(array, frame_axis=0), list[nf.NoiseModel])

landweber = nf.Landweber(net, [3, 9], passes=2, tau=1.1, solver="iteration")
A = nf.Inpainting([[True, False]])
assert_type(nf.restore_ntk(integers, A, return_info=True), tuple[np.ndarray, nf.RestoreInfo])
assert_type(nf.restore_ntk(array, A, 0.02, method=landweber, compute=compute), np.ndarray)
assert_type(
    nf.restore_ntk(tensor, nf.Blur((4, 4), [[1.0]]), guide=array, return_info=True), tuple[torch.Tensor, nf.RestoreInfo]
)
assert_type(nf.restore_ntk(array, nf.Downsampling((4, 4), 2), shape=(4, 4), rng=3), np.ndarray)
