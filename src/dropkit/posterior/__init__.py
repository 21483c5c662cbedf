"""Many passes of a model as draws: what they say, and how far it can be trusted."""
