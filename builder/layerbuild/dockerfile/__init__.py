"""Reads a Dockerfile that makes a webui image, and says what replaces each line. Nothing of it is run."""
