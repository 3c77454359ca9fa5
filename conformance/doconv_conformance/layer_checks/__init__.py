"""Checks that the backends' own tests share."""
