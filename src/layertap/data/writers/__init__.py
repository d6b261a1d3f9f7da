"""Writers of feature files, one module per format; `data.formats` is the table of them."""
