"""Check a live cluster: is everything in place that the webhooks need to guard it."""
