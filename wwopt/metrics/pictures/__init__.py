"""What does a spectrum look like?"""
