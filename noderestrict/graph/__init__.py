"""Which node may read which object: an index from nodes to the objects that their pods refer to."""
