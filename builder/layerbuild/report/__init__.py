"""A project as a picture: images against layers, what they share, and what a node pulls. Pure.

`describe.py` computes the values of `values.py`; `page.py` puts them into one HTML page that needs nothing
else. The page's own parts lie beside them: a template, a style sheet, and scripts without a build step.
"""
