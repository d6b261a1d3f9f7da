"""The page of `layertap explore`: its HTML, CSS and JavaScript, and what puts them into one file with the data."""
