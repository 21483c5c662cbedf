"""Every dropout of the field as a function: the same call on any device draws the same mask."""

from dropkit.functional.alpha import alpha_dropout, feature_alpha_dropout
from dropkit.functional.attention import scaled_dot_product_attention
from dropkit.functional.block import drop_block
from dropkit.functional.channels import channel_dropout, dropout1d, dropout2d, dropout3d
from dropkit.functional.dropout import dropout
from dropkit.functional.ensemble import multi_sample_dropout, r_drop, symmetric_kl
from dropkit.functional.fused import activation_dropout, dropout_add
from dropkit.functional.graph import dropout_edge, dropout_node
from dropkit.functional.learned import (
    concrete_dropout,
    log_uniform_kl,
    variational_dropout,
    variational_linear,
)
from dropkit.functional.locked import locked_dropout
from dropkit.functional.noise import gaussian_dropout, gaussian_noise
from dropkit.functional.path import depth_rates, drop_path, drop_path_subset, stochastic_depth
from dropkit.functional.tokens import embedding_dropout, head_dropout, patch_dropout, token_dropout
from dropkit.functional.weights import drop_connect
from dropkit.functional.zoneout import zoneout
from dropkit.kernel import derive, keyed, replayed_keys, split
from dropkit.records import Shard

__all__ = [
    "Shard",
    "activation_dropout",
    "alpha_dropout",
    "channel_dropout",
    "concrete_dropout",
    "depth_rates",
    "derive",
    "drop_block",
    "drop_connect",
    "drop_path",
    "drop_path_subset",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "dropout_add",
    "dropout_edge",
    "dropout_node",
    "embedding_dropout",
    "feature_alpha_dropout",
    "gaussian_dropout",
    "gaussian_noise",
    "head_dropout",
    "keyed",
    "locked_dropout",
    "log_uniform_kl",
    "multi_sample_dropout",
    "patch_dropout",
    "r_drop",
    "replayed_keys",
    "scaled_dot_product_attention",
    "split",
    "stochastic_depth",
    "symmetric_kl",
    "token_dropout",
    "variational_dropout",
    "variational_linear",
    "zoneout",
]
