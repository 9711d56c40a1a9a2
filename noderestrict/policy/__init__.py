"""NodeRestriction as pure functions of typed objects and listers."""
