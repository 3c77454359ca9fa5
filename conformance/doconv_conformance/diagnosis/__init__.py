"""What a failure is."""
