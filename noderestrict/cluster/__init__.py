"""The live cluster: stores kept current by list and watch, and live lookups."""
