"""The layer as a small program of loops, and every single edit of it: what the catalogue and the moves do not list.

`layer` has the program, `nest` evaluates it, `edits` makes the edits and their words, `search` finds those that a port made.
"""
