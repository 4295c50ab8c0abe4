"""Which hyperparameters has each layer, and how do they get into the training?"""
