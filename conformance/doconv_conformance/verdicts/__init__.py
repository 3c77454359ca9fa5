"""What is right, and how close is right."""
