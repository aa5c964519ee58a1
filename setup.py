"""Packages, and the recipes, simulated labs and built-in study that travel inside the wheel."""

from setuptools import find_packages, setup

SHIPPED = {
    "fedsci.shipped.strategies": "strategies",
    "fedsci.shipped.sites": "sites",
    "fedsci.shipped.examples.digits": "examples/digits",
}

setup(
    packages=[*find_packages(include=["fedsci", "fedsci.*"]), *SHIPPED],
    package_dir=SHIPPED,
    package_data={"fedsci": ["py.typed"], "fedsci.data": ["*.json", "*.txt"]}
    | {package: ["*.yaml", "*.md"] for package in SHIPPED},
)
