"""What keeps the suite honest: the kill matrix, false alarms, the table of what is supported."""
