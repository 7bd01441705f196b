"""The science: arrays in, frozen results out."""
