"""Networks: weights, registry, inference, training."""
