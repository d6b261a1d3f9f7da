"""Where weights come from: folders, the Hugging Face hub, installed packages; and what is in them."""
