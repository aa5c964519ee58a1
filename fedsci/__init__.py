"""fedsci: federated learning for research labs under record-level differential privacy."""

__version__ = "0.1.0"
