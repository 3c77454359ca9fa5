import sys
from pathlib import Path

# The recipes are scripts beside each other, not a package.
sys.path.insert(0, str(Path(__file__).parents[3] / "recipes"))
