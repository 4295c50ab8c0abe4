"""Which tensors does a file or folder hold, whatever its format?"""
