"""Cohorts: a plan and a table of scans become maps, numbers, figures and one report."""
