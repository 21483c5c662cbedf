"""From a table to a model: its columns, cocktails, and the population that is trained with them."""
