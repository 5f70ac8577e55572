"""kfusion: one decision from a picture and a sound.

Files directly in this package are verbs that one runs (`python -m kfusion.train`); folders are the nouns they use.
"""

__version__ = "0.1.0"
