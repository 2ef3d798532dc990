"""Registries: names, logins, the client over oras, and what others wrote there.

`clients.Clients` is the way in. Nothing is imported here, so that who only reads a name does not load oras.
"""
