"""Readers of input files, one small module per format; `data.formats` has the table of them."""
