"""weights: what a checkpoint folder holds and how it is proved unharmed."""
