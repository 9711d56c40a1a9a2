"""NodeRestriction as pure rules over typed objects and listers."""
