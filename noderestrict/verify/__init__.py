"""Find out from outside whether a cluster holds its nodes, whoever does it."""
