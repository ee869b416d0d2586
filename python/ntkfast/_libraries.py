"""Other libraries whose arrays are taken as images and vectors: the only list of them.

Nothing is imported here.  Each is known by the top-level name of the module of its types, and what reads them, an
:class:`ntkfast.images.Images`, is imported when the first value of such a type arrives (``images.py``).
"""

LIBRARIES = {
    "cupy": "ntkfast.adapters.cupy_images:CuPyImages",
    "dask": "ntkfast.adapters.dask_images:DaskImages",
    "torch": "ntkfast.adapters.torch_images:TorchImages",
    "xarray": "ntkfast.adapters.xarray_images:XarrayImages",
}
