"""Where the time goes: matrix products and the GRU's sweeps over time."""
