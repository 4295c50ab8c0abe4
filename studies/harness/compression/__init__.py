"""Trained networks to compress, and what each way of spending a byte budget costs them."""
