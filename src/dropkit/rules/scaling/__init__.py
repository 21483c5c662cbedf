"""Rules on what a dropout does to the mean, and to what it acts on."""
