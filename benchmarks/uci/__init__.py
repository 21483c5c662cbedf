"""The regression table of Gal & Ghahramani 2016, trained as a few batched populations."""
