"""Backends that run encoders, behind one interface."""
