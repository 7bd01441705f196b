"""Runs it: intake, jobs, pipeline, schedule, delivery."""
