"""Every dropout of the field as a layer: a law of `dropkit.functional` and a docstring."""

from dropkit.functional import depth_rates
from dropkit.nn.alpha import AlphaDropout, FeatureAlphaDropout
from dropkit.nn.block import DropBlock1d, DropBlock2d, DropBlock3d
from dropkit.nn.channels import Dropout1d, Dropout2d, Dropout3d, SpatialDropout
from dropkit.nn.dropout import Dropout
from dropkit.nn.ensemble import MultiSampleDropout
from dropkit.nn.graph import EdgeDropout, NodeDropout
from dropkit.nn.learned import ConcreteDropout, VariationalDropout, VariationalLinear, penalty
from dropkit.nn.locked import LockedDropout
from dropkit.nn.noise import GaussianDropout, GaussianNoise
from dropkit.nn.path import DropPath, LayerDrop, StochasticDepth, StochasticResidual
from dropkit.nn.recurrent import VariationalGRU, VariationalLSTM
from dropkit.nn.tokens import EmbeddingDropout, HeadDropout, PatchDropout, TokenDropout
from dropkit.nn.weights import (
    DropConnectConv1d,
    DropConnectConv2d,
    DropConnectConv3d,
    DropConnectLinear,
    WeightDrop,
    weight_drop,
)
from dropkit.nn.zoneout import Zoneout, ZoneoutGRUCell, ZoneoutLSTMCell

__all__ = [
    "AlphaDropout",
    "ConcreteDropout",
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "DropConnectConv1d",
    "DropConnectConv2d",
    "DropConnectConv3d",
    "DropConnectLinear",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "EdgeDropout",
    "EmbeddingDropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "HeadDropout",
    "LayerDrop",
    "LockedDropout",
    "MultiSampleDropout",
    "NodeDropout",
    "PatchDropout",
    "SpatialDropout",
    "StochasticDepth",
    "StochasticResidual",
    "TokenDropout",
    "VariationalDropout",
    "VariationalGRU",
    "VariationalLSTM",
    "VariationalLinear",
    "WeightDrop",
    "Zoneout",
    "ZoneoutGRUCell",
    "ZoneoutLSTMCell",
    "depth_rates",
    "penalty",
    "weight_drop",
]
