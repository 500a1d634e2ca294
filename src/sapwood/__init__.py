"""Background jobs for Python, in the database the application already has."""
