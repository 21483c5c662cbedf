"""Rules on dropout together with the other regularizers, the loss and the data."""
