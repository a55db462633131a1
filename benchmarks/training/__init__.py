"""The trainer against nanochat: speed on one GPU, equality of function, and where a step's time goes."""
