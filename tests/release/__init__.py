"""What a release publishes, built and checked: ``make release-check``."""
