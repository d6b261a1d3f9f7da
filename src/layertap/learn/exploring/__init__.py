"""Content of the page of `layertap explore`: texts on a plane for each layer, their neighbours, tokens, attentions.

`content.py` puts a page together from what the other modules compute.
"""
