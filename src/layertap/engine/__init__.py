"""Where plan, model, text and backend meet."""
