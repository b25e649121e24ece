"""An independent implementation of the Sortie protocol, for checking vectors. See ../check_vectors.py."""
