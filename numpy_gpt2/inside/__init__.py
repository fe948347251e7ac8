"""Looking inside a model, and changing what is there.

`recorder` keeps what a pass computes, and `patches` change it; `watcher`, on which both stand, gives each array its
name, with `statements`. `explanation` shows the arithmetic of one number, with `arithmetic` and `operands`. `tables`
and `experiments` have functions that return what there is to see. `pictures` draws that into an axis, `figures` makes
whole pictures, and `source` shows the code of a function.
"""

from . import experiments, patches, tables
from .explanation import explain
from .patches import mean, patch, put, scale, zero
from .recorder import trace

__all__ = ["experiments", "explain", "mean", "patch", "patches", "put", "scale", "tables", "trace", "zero"]
