import sys
from pathlib import Path

# The recipes are scripts beside each other, not a package; so is what these tests run in a process of its own.
sys.path[:0] = [str(Path(__file__).parents[3] / "recipes"), str(Path(__file__).parent)]
