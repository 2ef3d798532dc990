"""layerbuild: reproducible, content-addressed OCI layers for Stable Diffusion webui images."""

__version__ = "0.1.0"
