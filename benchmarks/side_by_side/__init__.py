"""A rival and this package on the same weights and inputs, in processes of their own that take turns."""
