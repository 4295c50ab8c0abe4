"""Which values does the next trial get, and which trial is broken off?"""
