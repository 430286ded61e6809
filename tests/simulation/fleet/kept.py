"""Seeds that have found a fault, and which one. A change of what is drawn makes other worlds of
them."""

KEPT = {}
