"""The compiled kernels against torch."""
