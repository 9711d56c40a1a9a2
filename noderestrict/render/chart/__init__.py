"""The Helm chart, generated from what the overlays are made of."""
