"""Learning rates layer by layer: by rules that read spectra, by depth, by search."""
