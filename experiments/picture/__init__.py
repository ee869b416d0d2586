"""The paper's ten cases on a picture of one's own: ``python -m experiments --picture PATH --sigma 25 --budget 15``.

It is no experiment of the registry, since its picture, noise and minutes are the user's.  ``reading.py`` has the
picture, ``measure.py`` its units of work, ``summary.py`` and ``text.py`` what they come to, ``command.py`` the command.
"""
