"""Where records come from: one small file a format; the table of them is `data.formats`."""
