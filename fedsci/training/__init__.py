"""Models, local training, DP-SGD and evaluation; the only package that imports torch and opacus."""
