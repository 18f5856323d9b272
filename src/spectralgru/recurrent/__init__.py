"""The GRU and how it is made fast."""
