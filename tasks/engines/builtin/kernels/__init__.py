"""Triton kernels of the fused path: what lies between the products and the attention, in as few passes over memory as we found."""
