"""Dropout as the ensemble that it stands for: all thinned networks, with nothing drawn.

    >>> import torch
    >>> from dropkit.ensemble import exact
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Dropout(0.5))
    >>> exact(net.eval(), torch.ones(2, 4))
    Exact(8 networks, of 3 bits)

`exact` runs all of them, of a small model; `affine` needs one for each element that may be dropped,
where a linear map follows, and nothing else.
"""

from dropkit.posterior.affine import Affine, affine
from dropkit.posterior.ensemble import Exact, exact
from dropkit.posterior.telling import Bits

__all__ = ["Affine", "Bits", "Exact", "affine", "exact"]
