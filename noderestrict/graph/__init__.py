"""Who may read what: an index from nodes to the objects that their pods name."""
