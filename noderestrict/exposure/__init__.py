"""What would fall with a stolen node: paths from nodes over credentials and rights to others."""
