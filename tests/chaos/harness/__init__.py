"""Injects every way to fail into a real experiment, and compares what is left with an undisturbed one."""
