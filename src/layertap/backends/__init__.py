"""Who runs it: backends behind one seam."""
