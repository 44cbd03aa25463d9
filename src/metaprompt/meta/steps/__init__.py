"""The tensors of a meta-step: interpolation, inner gradient, regularizer, outer gradient."""
