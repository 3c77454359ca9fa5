"""How a program is asked: processes, sessions, schemas."""
