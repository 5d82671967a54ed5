"""Channels taken out of a network: the width of a layer, beside its ranks."""
