"""The ways in which users run a backend's layers. `table` says what each is; a module for each framework says how it is run."""
