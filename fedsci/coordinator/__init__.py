"""The coordinator's side of a study: asks sites, adds up what comes back, never sees data."""
