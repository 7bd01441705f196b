"""A made-up trial with known change and planted faults: what a node must say of it is known before it is asked."""
