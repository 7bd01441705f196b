"""Reports for people, as HTML and PDF from one source."""
