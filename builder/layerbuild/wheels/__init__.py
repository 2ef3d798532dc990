"""Wheels: what is in one, and what an installer makes of it (PyPA's "Binary distribution format" and "Recording
installed projects"). Nothing of a wheel is ever run, and nothing of it is unpacked to disk.
"""
