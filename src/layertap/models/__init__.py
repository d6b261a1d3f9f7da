"""What an architecture is, as data; nothing here computes."""
