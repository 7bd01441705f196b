"""Voxel-based relaxometry of a cohort: statistics on registered maps, level by level."""
