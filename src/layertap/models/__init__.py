"""Architectures as data; nothing here computes."""
