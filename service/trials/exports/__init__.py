"""What statisticians, archives and other programs get of a trial: pseudonyms, days, numbers with reasons."""
