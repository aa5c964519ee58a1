"""How requests reach sites and replies come back; the only package that imports flwr."""
