"""The authors' released files: read into checkpoint folders, and written back in their own layout.

`layout.py` is the one table of names; `sources.py` reads files without running code from them; `variant.py`,
`backbone.py` and `adapters.py` read what they hold; `plan.py` finds every tensor; `importing.py` and `exporting.py` do
the work, one tensor at a time; `about.py` says what a checkpoint is.
"""
