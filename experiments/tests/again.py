"""Filters, trainings and kernels in double precision, by which tests compute the experiments' units again."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments import architectures

Kernel = np.ndarray


def filtered(K: Kernel, y: np.ndarray, steps: Any) -> np.ndarray:
    """(I - (I - K/lambda_max)^t) y for y of shape (H, W, 3) and a kernel of its pixels, or of its numbers."""
    values, vectors = np.linalg.eigh(K)
    inside = vectors.T @ y.reshape(len(K), -1)
    gains = [1 - (1 - np.maximum(values, 0) / values[-1]) ** t for t in steps]
    return np.stack([(vectors @ (gain[:, None] * inside)).reshape(y.shape) for gain in gains])


def best_of(problem: Any, path: np.ndarray) -> tuple[float, int]:
    """The best PSNR of a path, and where it is."""
    error = np.mean(np.square(path - problem.clean), axis=(1, 2, 3))
    return float(-10 * np.log10(error.min())), int(error.argmin())


def image_of(z: Any) -> np.ndarray:
    return z.detach()[0].permute(1, 2, 0).numpy().copy()


def dense_kernel(module: Any, x: np.ndarray) -> np.ndarray:
    """J J^T by autograd, row by row; channels of a pixel together."""
    import torch

    z = module(torch.from_numpy(x).permute(2, 0, 1)[None]).permute(0, 2, 3, 1).reshape(-1)
    weights = list(module.parameters())
    rows = [torch.cat([g.ravel() for g in torch.autograd.grad(one, weights, retain_graph=True)]) for one in z]
    J = torch.stack(rows).numpy()
    return np.asarray(J @ J.T)


def weight_scales(module: Any) -> list[float]:
    return [part.weight_scale for part in module.modules() if hasattr(part, "weight_scale")]


def trained(module: Any, x: np.ndarray, y: np.ndarray, optimizer: str, rate: float, steps: int) -> np.ndarray:
    """All outputs less the first one, by gradient descent or by Adam's formulas on the effective weights; in place."""
    import torch

    inp, target = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (x, y))
    weights, scales = list(module.parameters()), weight_scales(module)
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    start, outputs = module(inp).detach(), []
    for t in range(1, steps + 1):
        gradients = torch.autograd.grad(0.5 * (module(inp) - start - target).square().sum(), weights)
        with torch.no_grad():
            for n, (w, g, s) in enumerate(zip(weights, gradients, scales, strict=True)):
                if optimizer == "gd":
                    w -= rate * g
                    continue
                g = g / s  # the gradient by the effective weights s w
                first[n] = 0.9 * first[n] + 0.1 * g
                second[n] = 0.999 * second[n] + 0.001 * g**2
                mean, square = first[n] / (1 - 0.9**t), second[n] / (1 - 0.999**t)
                w -= rate * mean / (square.sqrt() + 1e-8) / s
        outputs.append(image_of(module(inp) - start))
    return np.stack([np.zeros_like(outputs[0]), *outputs])


def start_module(network: Any, width: int, seed: int, channels: int) -> Any:
    return architectures.finite_network(network, width, seed, "cpu", in_channels=channels, out_channels=3).double()


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


DB = 0.01  # dB; tolerance of single precision, and of filters to 1e-3
