"""The manifests: plain YAML in ``data``, completed by what is derived from the rules."""
