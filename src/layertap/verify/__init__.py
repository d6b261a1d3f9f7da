"""How close a model's numbers are to transformers': the comparison behind `layertap verify`, and its certificate."""
