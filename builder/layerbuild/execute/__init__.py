"""Carries out what a plan says: fetches, packs, pushes. The only rooms with threads."""
