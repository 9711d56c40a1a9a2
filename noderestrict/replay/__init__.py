"""Judge captured reviews offline."""
