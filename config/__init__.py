"""Every setting and every site-specific fact. Imports nothing of ours."""
