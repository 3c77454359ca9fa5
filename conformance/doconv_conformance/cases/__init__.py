"""What is asked: the table of cases and the numbers that fill them."""
