"""The paper again, on simulated cohorts A and B: images, results, analyses, tables, figures, and what was planted."""
