"""Data sets that are read: files of TFF and LEAF, the digits of scikit-learn, a user's arrays."""
