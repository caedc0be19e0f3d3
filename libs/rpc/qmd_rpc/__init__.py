"""Generated stubs, the server shell, and a typed client of every service."""
