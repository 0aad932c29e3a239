"""Models: the catalogue of weights, their verification and the runtimes that execute them."""
