"""Gated recurrent units that cannot explode."""
