"""Adapters for libraries that take an embedding model of their own kind, one module for each library.

A module needs its library: importing it without says how to install the extra of the same name.
"""
