"""The public names of the package, each with the module that it is imported from at first use: the only list of them.

Type checkers read it as a stub, and ``__init__.py`` reads it when the package is imported.
"""

from . import deepinv as deepinv
from . import finite as finite
from . import reference as reference
from .activations import GELU as GELU
from .activations import Abs as Abs
from .activations import Cos as Cos
from .activations import Erf as Erf
from .activations import Gaussian as Gaussian
from .activations import LeakyReLU as LeakyReLU
from .activations import ReLU as ReLU
from .activations import Sin as Sin
from .engine.info import __version__ as __version__
from .engine.info import info as info
from .engine.roofline import roofline as roofline
from .finite.from_torch import from_torch as from_torch
from .inputs import NoiseInput as NoiseInput
from .kernel import NNGP as NNGP
from .kernel import NTK as NTK
from .network import AvgPool as AvgPool
from .network import Conv as Conv
from .network import Identity as Identity
from .network import Network as Network
from .network import Skip as Skip
from .network import Upsample as Upsample
from .network import autoencoder as autoencoder
from .network import unet as unet
from .network import vanilla_cnn as vanilla_cnn
from .restoration.denoise import DenoiseInfo as DenoiseInfo
from .restoration.denoise import denoise_ntk as denoise_ntk
from .restoration.inverse import RestoreInfo as RestoreInfo
from .restoration.inverse import restore_ntk as restore_ntk
from .restoration.noise_level import estimate_noise as estimate_noise
from .restoration.noise_model import NoiseModel as NoiseModel
from .restoration.operators import Blur as Blur
from .restoration.operators import Downsampling as Downsampling
from .restoration.operators import Inpainting as Inpainting
from .restoration.options import Compute as Compute
from .restoration.options import Landweber as Landweber
from .restoration.options import Tiles as Tiles
from .restoration.options import WholeImage as WholeImage
from .restoration.stabilize import PoissonGaussian as PoissonGaussian
from .spectral.filters import FilterInfo as FilterInfo
from .spectral.filters import gradient_descent as gradient_descent
from .spectral.filters import gradient_flow as gradient_flow
from .spectral.filters import ridge as ridge
from .spectral.lowrank import ErrorEstimate as ErrorEstimate
from .spectral.lowrank import LowRank as LowRank
from .spectral.lowrank import nystrom as nystrom
from .spectral.lowrank import randomized_low_rank as randomized_low_rank
