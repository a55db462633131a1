"""Triton kernels of the fused path: what lies between the products and the attention, in as few passes over memory as we found.

Sizes have the same letter in every file: B sequences of T positions are M = B T tokens; C channels are H heads of D = C / H;
V tokens in the vocabulary, VP with padding. A kernel works on tiles; comments give the shape at the line where it changes.
"""
