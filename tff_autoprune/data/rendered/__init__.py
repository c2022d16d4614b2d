"""Data sets that are drawn here, so that everything runs without a download."""
