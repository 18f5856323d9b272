"""P_delta, exact and cheap: singular values above a bound are lowered to it."""
