"""What an image would still do at its cold start: read without downloading a single model.

`view.open_image` reads an image's documents and tar headers into an `ImageView`; `checks.run` asks
every check what it finds there. Nothing in the image is executed.
"""
