"""Judge requests by ValidatingAdmissionPolicies, as the API server does, without one.

``documents`` reads and checks the policies; ``matching`` says which requests they are for; ``cel``
compiles and evaluates their expressions with the help of ``presence``, which gives them the meaning
that they have in Kubernetes; ``evaluate`` puts it together.
"""
