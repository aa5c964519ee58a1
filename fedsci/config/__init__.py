"""The files people write (study, site, strategy): their models, and loading with errors that help."""
