"""Training of the networks (extra: train). Nothing here is needed to run the node."""
