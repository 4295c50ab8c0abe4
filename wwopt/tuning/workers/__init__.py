"""What runs the trials: one worker, processes on this machine, or those of a Dask cluster?"""
