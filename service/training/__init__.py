"""Training at a site: prepare annotated exams, train an ensemble, export it, install it if it is better."""
