"""What programs use, and the commands too: `load` gives a `Project`, whose methods lock, plan, build, push and audit.
What they return are frozen values with `as_json`. `layerbuild` itself offers all of it by name.
"""
