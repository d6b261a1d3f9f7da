"""Fitting linear heads to features of a frozen encoder."""
