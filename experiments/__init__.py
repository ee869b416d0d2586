"""The paper's claims as experiments: ``python -m experiments --scale small``.

How an experiment plugs in.  It is a package with one :class:`~experiments.experiment.Experiment` that names what
follows, listed in :data:`experiments.registry.EXPERIMENTS`; its sizes are a frozen dataclass of its own, one field of
:class:`~experiments.scales.Scale`.

- ``units(scale)`` -> list of :class:`~experiments.experiment.Unit`: the pieces of work, each with a key that is a path
  below the experiment's name (``vanilla/width=16/seed=0``) and *all* settings on which the result depends, as JSON.
  Small units, of seconds to a minute: what is done when the command is stopped is not done again.
- ``run(settings, tools)`` -> :class:`~experiments.experiment.Result`: the values (JSON, finite numbers or None) and, if
  need be, arrays, which are kept in an npz file.  It reads nothing but its arguments.  ``tools.device`` is a device of
  PyTorch, ``tools.progress(fraction)`` moves the bar.
- ``summarize(records)`` -> dict: what the results come to, as JSON that a person reads: everything that claims and text
  need, from settings and values and not from arrays.  Numbers are rounded, and nan becomes None, before anyone sees it.
- ``claims``: the table of :class:`~experiments.experiment.Claim`, whose order numbers them, each with a function
  ``checks(summary)``; one without checks counts as not run.  A verdict is computed from the checks alone.
- ``text(summary)`` -> Markdown: the settings in words, and tables.
- ``figures(records)`` -> list of :class:`~experiments.experiment.Picture`: matplotlib figures with names and captions.

``records`` are the :class:`~experiments.experiment.Record` of the experiment's units at this scale that have a result,
in the order of the units; all of these functions must bear any part of them, and the last three none, for which the
summary is empty.

A change of the code that changes results raises ``version``: results of other versions or settings are computed again,
and a summary of another version counts as not run.
"""
