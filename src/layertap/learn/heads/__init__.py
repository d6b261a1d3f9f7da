"""Classification heads on features of an encoder: what they are, how they are stored, and how they predict."""
