"""A whole run: cases on a port, ports against each other, a picture, vectors on disk."""
