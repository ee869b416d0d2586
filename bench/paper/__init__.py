"""The paper's claims as experiments: ``python -m bench.paper --scale small``.

How an experiment plugs in.  It is a module with the functions below and one :class:`~bench.paper.experiment.Experiment`
that names them, listed in :data:`bench.paper.registry.EXPERIMENTS`; its sizes are a frozen dataclass of its own, one
field of :class:`~bench.paper.scales.Scale`.

- ``units(scale)`` -> list of :class:`~bench.paper.experiment.Unit`: the pieces of work, each with a key that is a path
  below the experiment's name (``vanilla/width=16/seed=0``) and *all* settings on which the result depends, as JSON.
  Small units, of seconds to a minute: what is done when the command is stopped is not done again.
- ``run(settings, tools)`` -> :class:`~bench.paper.experiment.Result`: the values (JSON, finite numbers or None) and, if
  need be, arrays, which are kept in an npz file.  It reads nothing but its arguments.  ``tools.device`` is a device of
  PyTorch, ``tools.progress(fraction)`` moves the bar.
- ``figures(records)`` -> list of :class:`~bench.paper.experiment.Picture`: matplotlib figures with names and captions.
- ``claims(records)`` -> list of :class:`~bench.paper.experiment.Claim`: always all of them, in the same order, which
  numbers them; one without checks counts as not run.  A verdict is computed from the checks alone, and these from
  settings and values: the arrays are for the figures.
- ``text(records)`` -> Markdown: the settings in words, and tables.

``records`` are the :class:`~bench.paper.experiment.Record` of the experiment's units at this scale that have a result,
in the order of the units; the last three functions must bear any part of them, and none.

A change of the code that changes results raises ``version``: results of other versions or settings are computed again.
"""
