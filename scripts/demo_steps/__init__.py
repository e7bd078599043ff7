"""The steps of `make demo`, one module each."""
