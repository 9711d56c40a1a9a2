"""The API server's audit log: what the rules would have answered to each write of a node.

An audit event does not hold all that a webhook sees; how much it holds depends on its level. The
existing object comes from earlier events of the log. What had to be assumed is part of the result.
"""
