"""P_delta, exact and cheap: singular values above a bound become the bound."""
