"""What are a matrix's eigenvalues, and which law do they follow?

`compute_spectrum` turns a weight matrix into its empirical spectral density (ESD), the moments of
its entries and the spectra of its seeded shuffles: a `LayerSpectrum`, which is all that is measured
of a layer and needs no weights. The other files hold a law each (power law, truncated, broken,
Marchenko-Pastur), what counts as a correlation trap, and norms; none of them knows of models.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
