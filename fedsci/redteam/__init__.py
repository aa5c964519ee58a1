"""Attacks on fedsci's own claims, and audits of what it says of privacy: measured on simulated labs."""
