"""Pictures drawn with matplotlib from plain arrays: one style, figures of probes, and the training curve."""
