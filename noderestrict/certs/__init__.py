"""Create, renew, rotate and check the served certificate in clusters without cert-manager.

A kept CA has a place apart from the certificate that it signs: renewing replaces only the leaf, and
no caBundle changes. A CA that is not kept is new with every leaf: its key is thrown away.
"""
