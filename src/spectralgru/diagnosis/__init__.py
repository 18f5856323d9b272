"""Why a recurrent network exploded: finite-time growth, a flight recorder, and the autopsy of what it recorded."""
