"""Check a live cluster: can the webhooks protect it?"""
