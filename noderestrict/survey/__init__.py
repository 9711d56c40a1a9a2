"""Which service accounts run on every node, and what a stolen node would get with them."""
