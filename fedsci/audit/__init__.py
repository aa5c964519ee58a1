"""Evidence that verifies offline: signed statements, the log that binds them, and what checks both."""
